//! What WGSL's language means in the CUDA C++ that `naga-cuda` writes: each shader here runs and must give the numbers
//! that the specification defines.
//!
//! Runs where there is a CUDA driver, or the stand-in for one (`cargo xtest cuda`). `SHARDLIGHT_REQUIRE_CUDA=1` makes a
//! missing driver a failure.

mod arithmetic;
mod flow;
mod layout;
mod mathematics;
mod run;
mod subgroups;
