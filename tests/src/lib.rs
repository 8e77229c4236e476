//! Tests of the whole of Shardlight.
