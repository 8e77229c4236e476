use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::weights::BytesSource;
use crate::weights::source::{LocalFuture, check_range};

fn parse(bytes: &[u8]) -> Result<GgufHeader> {
    let source = BytesSource::new("m.gguf", bytes.to_vec());
    pollster::block_on(GgufHeader::read(&source, 0))
}

fn error(bytes: &[u8]) -> String {
    match parse(bytes) {
        Ok(header) => panic!("accepted: {header:?}"),
        Err(error) => error.to_string(),
    }
}

/// Bytes put together by hand.
struct Raw(Vec<u8>);

impl Raw {
    fn header(tensors: u64, keys: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }
    fn bytes(mut self, x: &[u8]) -> Raw {
        self.0.extend(x);
        self
    }
    fn u32(self, x: u32) -> Raw {
        self.bytes(&x.to_le_bytes())
    }
    fn u64(self, x: u64) -> Raw {
        self.bytes(&x.to_le_bytes())
    }
    fn str(self, x: &[u8]) -> Raw {
        self.u64(x.len() as u64).bytes(x)
    }
    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Raw {
        let raw = self.str(name.as_bytes()).u32(dims.len() as u32);
        let raw = dims.iter().fold(raw, |raw, &d| raw.u64(d));
        raw.u32(kind).u64(offset)
    }
    /// The error, with `n` zero bytes behind the header.
    fn error(self, n: usize) -> String {
        error(&self.bytes(&vec![0; n]).0)
    }
}

fn one_tensor(dims: &[u64], kind: u32, offset: u64) -> String {
    Raw::header(1, 0)
        .tensor("w", dims, kind, offset)
        .error(4096)
}

fn strings(texts: &[&str]) -> MetaValue {
    MetaValue::Array(MetaArray::String(texts.iter().collect()))
}

/// A small valid file with every kind of value.
fn sample() -> Writer {
    let nested = MetaArray::Array(vec![
        MetaArray::U8(vec![1, 2]),
        MetaArray::String(["x"].iter().collect()),
    ]);
    Writer::new()
        .metadata("a.u8", MetaValue::U8(200))
        .metadata("a.i8", MetaValue::I8(-3))
        .metadata("a.u16", MetaValue::U16(60_000))
        .metadata("a.i16", MetaValue::I16(-300))
        .metadata("a.u32", MetaValue::U32(4_000_000_000))
        .metadata("a.i32", MetaValue::I32(-70_000))
        .metadata("a.u64", MetaValue::U64(1 << 60))
        .metadata("a.i64", MetaValue::I64(-1 << 60))
        .metadata("a.f32", MetaValue::F32(1e-5))
        .metadata("a.f64", MetaValue::F64(0.25))
        .metadata("a.bool", MetaValue::Bool(true))
        .metadata("a.str", MetaValue::String("Grüße".into()))
        .metadata("a.strs", strings(&["", "<s>", "é"]))
        .metadata("a.f32s", MetaValue::Array(MetaArray::F32(vec![-1.5, 2.0])))
        .metadata(
            "a.bools",
            MetaValue::Array(MetaArray::Bool(vec![true, false])),
        )
        .metadata("a.i32s", MetaValue::Array(MetaArray::I32(vec![-1, 3])))
        .metadata("a.u64s", MetaValue::Array(MetaArray::U64(vec![1, 1 << 40])))
        .metadata("a.nested", MetaValue::Array(nested))
        .metadata("general.alignment", MetaValue::U32(64))
        .tensor("norm", DType::F32, &[5], vec![1; 20])
        .tensor("w", DType::Q8_0, &[3, 64], vec![2; 3 * 68])
        .tensor("h", DType::F16, &[2, 3, 4], vec![3; 48])
}

#[test]
fn written_files_read_back() {
    for version in [2, 3] {
        let header = parse(&sample().version(version).to_bytes().unwrap()).unwrap();
        assert_eq!((header.version, header.alignment), (version, 64));
        let m = &header.metadata;
        assert_eq!(m.len(), 19);
        assert_eq!(m.get("a.i64"), Some(&MetaValue::I64(-1 << 60)));
        assert_eq!(m.get("a.nested").unwrap().to_string(), "2 arrays");
        assert_eq!(m.get("a.i32s").unwrap().to_string(), "2 i32 [-1, 3]");
        assert_eq!(m.u32("a.u8").unwrap(), 200);
        assert_eq!(m.f32("a.f64").unwrap(), 0.25);
        assert_eq!(m.str("a.str").unwrap(), "Grüße");
        assert!(m.bool("a.bool").unwrap());
        let texts: Vec<&str> = m.strings("a.strs").unwrap().iter().collect();
        assert_eq!(texts, ["", "<s>", "é"]);
        assert_eq!(m.f32s("a.f32s").unwrap(), [-1.5, 2.0]);
        assert_eq!(m.i32s("a.i32s").unwrap().as_ref(), [-1, 3]);
        assert_eq!(m.u32s("a.u8").unwrap(), [200]);
        assert_eq!(m.opt_u32("none").unwrap(), None);

        let t = &header.tensors;
        assert_eq!(t[1].name, "w");
        assert_eq!(
            (t[1].dtype, t[1].shape.as_slice()),
            (DType::Q8_0, &[3, 64][..])
        );
        assert_eq!((t[1].row_len(), t[1].rows()), (64, 3));
        assert_eq!(t[2].shape, [2, 3, 4]);
        let places: Vec<(u64, u64)> = t
            .iter()
            .map(|t| (t.offset - header.data_offset, t.bytes))
            .collect();
        assert_eq!(places, [(0, 20), (64, 204), (320, 48)]);
        assert_eq!(header.data_offset % 64, 0);
    }
}

#[test]
fn getters_name_file_key_and_type() {
    let m = parse(&sample().to_bytes().unwrap()).unwrap().metadata;
    let text = |e: Error| e.to_string();
    assert_eq!(
        m.u32("llama.x").map_err(text).unwrap_err(),
        "m.gguf: metadata has no key llama.x"
    );
    assert_eq!(
        m.u32("a.str").map_err(text).unwrap_err(),
        "m.gguf: key a.str: expected an integer, it is of type string"
    );
    assert_eq!(
        m.u32("a.u64").map_err(text).unwrap_err(),
        "m.gguf: key a.u64: 1152921504606846976 does not fit u32"
    );
    assert_eq!(
        m.opt_u32("a.i8").map_err(text).unwrap_err(),
        "m.gguf: key a.i8: -3 does not fit u32"
    );
    assert_eq!(
        m.u32s("a.i32s").map_err(text).unwrap_err(),
        "m.gguf: key a.i32s: -1 does not fit u32"
    );
    assert_eq!(
        m.f32s("a.strs").map_err(text).unwrap_err(),
        "m.gguf: key a.strs: expected an array of f32, it is of type array of string"
    );
    let mut m = m;
    m.insert("eps", MetaValue::F32(f32::NAN));
    assert_eq!(
        m.f32("eps").map_err(text).unwrap_err(),
        "m.gguf: key eps: is NaN, expected a finite number"
    );
}

#[test]
fn truncated_header_is_an_error_at_every_length() {
    let bytes = sample().to_bytes().unwrap();
    for n in 0..bytes.len() {
        let text = error(&bytes[..n]);
        assert!(text.starts_with("m.gguf: "), "{n} bytes: {text}");
        assert!(!text.contains('\n'), "{n} bytes: {text}");
    }
    assert!(parse(&bytes).is_ok());
}

#[test]
fn empty_and_cut_files_are_not_models() {
    assert_eq!(error(b""), "m.gguf: 0 bytes, not a model");
    assert_eq!(
        error(b"GGUF\x03\0\0\0\0\0"),
        "m.gguf: 10 bytes, not a model"
    );
}

#[test]
fn other_files_are_refused_by_name() {
    let page = error(b"<!DOCTYPE html><html><title>404</title></html>");
    assert_eq!(
        page,
        "m.gguf: an HTML or XML page, not a model; the download gave a web page, check the address"
    );
    let pointer = error(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 98\n");
    assert_eq!(
        pointer,
        "m.gguf: a Git LFS pointer to 98 bytes, not the model itself; run git lfs pull or download the file"
    );
    let safetensors = error(b"\x20\0\0\0\0\0\0\0{\"w\":{}                         }");
    assert_eq!(safetensors, "m.gguf: a safetensors file, expected GGUF");
    let magic = error(b"RIFF0123456789012345678901234567890");
    assert_eq!(
        magic,
        "m.gguf: starts with bytes 52 49 46 46, which is neither GGUF nor safetensors"
    );
}

#[test]
fn version_and_byte_order_are_named() {
    let version = |v| error(&Raw(b"GGUF".to_vec()).u32(v).u64(0).u64(0).0);
    assert_eq!(version(1), "m.gguf: GGUF version 1; supported: 2, 3");
    assert_eq!(version(4), "m.gguf: GGUF version 4; supported: 2, 3");
    assert_eq!(
        version(3_u32.swap_bytes()),
        "m.gguf: big-endian GGUF; convert the model again for a little-endian machine"
    );
}

#[test]
fn counts_are_compared_with_the_file() {
    assert_eq!(
        Raw::header(u64::MAX, 0).error(0),
        "m.gguf: header names 18446744073709551615 tensors, file has 0 bytes left"
    );
    assert_eq!(
        Raw::header(0, 1 << 32).error(100),
        "m.gguf: header names 4294967296 keys, file has 100 bytes left"
    );
    assert_eq!(
        Raw::header(4, 0).error(100),
        "m.gguf: header names 4 tensors, file has 100 bytes left"
    );
}

#[test]
fn huge_strings_and_arrays_are_refused_before_allocation() {
    assert_eq!(
        Raw::header(0, 1).str(b"k").u32(8).u64(1 << 62).error(9),
        "m.gguf: key k: string is 4611686018427387904 bytes long, file has 9 bytes left"
    );
    assert_eq!(
        Raw::header(0, 1).u64(70_000).error(80_000),
        "m.gguf: key 0: key is 70000 bytes long, at most 65535 are allowed"
    );
    let array = |kind, n| Raw::header(0, 1).str(b"k").u32(9).u32(kind).u64(n).error(9);
    assert_eq!(
        array(4, u64::MAX),
        "m.gguf: key k: array has 18446744073709551615 elements, file has 9 bytes left"
    );
    assert_eq!(
        array(8, 2),
        "m.gguf: key k: array has 2 elements, file has 9 bytes left"
    );
    assert_eq!(
        array(13, 1),
        "m.gguf: key k: array element type 13, GGUF has 0 to 12"
    );
}

#[test]
fn nested_arrays_end_at_depth_4() {
    let nest = |depth| {
        let raw = Raw::header(0, 1).str(b"k").u32(9);
        let raw = (1..depth).fold(raw, |raw, _| raw.u32(9).u64(1));
        raw.u32(0).u64(0)
    };
    assert!(parse(&nest(4).0).is_ok());
    let deep = "m.gguf: key k: arrays are nested deeper than 4";
    assert_eq!(nest(5).error(0), deep);
    assert_eq!(nest(20_000).error(0), deep);
}

#[test]
fn bad_keys_and_values_are_refused() {
    let key = |key: &[u8]| Raw::header(0, 1).str(key).u32(0).bytes(&[1]).error(0);
    assert_eq!(key(b""), "m.gguf: key 0: key is empty");
    assert_eq!(key(b"ab\xff"), "m.gguf: key 0: key is not UTF-8 at byte 2");
    let twice = Raw::header(0, 2);
    let twice = twice
        .str(b"a.b")
        .u32(0)
        .bytes(&[1])
        .str(b"a.b")
        .u32(0)
        .bytes(&[1]);
    assert_eq!(twice.error(0), "m.gguf: key 1: a.b is there twice");
    let value = |kind, bytes: &[u8]| Raw::header(0, 1).str(b"k").u32(kind).bytes(bytes).error(0);
    assert_eq!(
        value(13, &[0]),
        "m.gguf: key k: value type 13, GGUF has 0 to 12"
    );
    assert_eq!(
        value(7, &[2]),
        "m.gguf: key k: bool of value 2, expected 0 or 1"
    );
    assert_eq!(
        Raw::header(0, 1).str(b"k").u32(8).str(b"\xC3").error(0),
        "m.gguf: key k: string is not UTF-8 at byte 0"
    );
    let list = Raw::header(0, 1)
        .str(b"k")
        .u32(9)
        .u32(8)
        .u64(2)
        .str(b"ok")
        .str(b"\xFF");
    assert_eq!(
        list.error(0),
        "m.gguf: key k: element 1: string is not UTF-8 at byte 0"
    );
    assert_eq!(
        value(4, &[1, 2]),
        "m.gguf: file of 39 bytes ends inside the value".replace("m.gguf: ", "m.gguf: key k: ")
    );
}

#[test]
fn alignment_is_a_sensible_power_of_two() {
    let with = |value| {
        error(
            &Writer::new()
                .metadata(ALIGNMENT_KEY, value)
                .to_bytes()
                .unwrap(),
        )
    };
    for n in [0, 3, 4, 48, 1 << 21, 1 << 31] {
        assert_eq!(
            with(MetaValue::U32(n)),
            format!(
                "m.gguf: key general.alignment: alignment {n}, expected a power of two from 8 to 1048576"
            )
        );
    }
    assert_eq!(
        with(MetaValue::U64(32)),
        "m.gguf: key general.alignment: expected u32, it is of type u64"
    );
}

#[test]
fn dimensions_are_checked() {
    assert_eq!(
        one_tensor(&[1; 5], 0, 0),
        "m.gguf: tensor w: 5 dimensions, expected 1 to 4"
    );
    assert_eq!(
        one_tensor(&[], 0, 0),
        "m.gguf: tensor w: 0 dimensions, expected 1 to 4"
    );
    assert_eq!(
        one_tensor(&[4, 0], 0, 0),
        "m.gguf: tensor w: dimension 1 of [4, 0] is 0"
    );
    let half = 1 << 32;
    assert_eq!(
        one_tensor(&[half, half], 0, 0),
        "m.gguf: tensor w: f32 dimensions [4294967296, 4294967296] overflow"
    );
    assert_eq!(
        one_tensor(&[half, 1 << 30, 4], 0, 0),
        "m.gguf: tensor w: f32 dimensions [4294967296, 1073741824, 4] overflow"
    );
}

#[test]
fn types_and_rows_are_checked() {
    let supported =
        "supported: f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, mxfp4";
    assert_eq!(
        one_tensor(&[256], 16, 0),
        format!("m.gguf: tensor w: type iq2_xxs (16); {supported}")
    );
    assert_eq!(
        one_tensor(&[256], 4096, 0),
        format!("m.gguf: tensor w: unknown type 4096; {supported}")
    );
    assert_eq!(
        one_tensor(&[48, 2], 3, 0),
        "m.gguf: tensor w: rows of 48 elements are not whole q4_1 blocks of 32"
    );
}

#[test]
fn offsets_are_aligned_inside_and_apart() {
    assert_eq!(
        one_tensor(&[4], 0, 33),
        "m.gguf: tensor w: offset 33 is not a multiple of the alignment 32"
    );
    assert_eq!(
        one_tensor(&[1025], 0, 0),
        "m.gguf: tensor w: needs 4100 bytes at offset 0 of the data, which starts at 64; file has 4153 bytes"
    );
    assert_eq!(
        one_tensor(&[4], 0, u64::MAX - 31),
        "m.gguf: tensor w: needs 16 bytes at offset 18446744073709551584 of the data, which starts at 64; file has 4153 bytes"
    );
    let two = Raw::header(2, 0)
        .tensor("a", &[9], 0, 32)
        .tensor("b", &[4], 0, 64);
    assert_eq!(
        two.error(4096),
        "m.gguf: tensor b: starts at byte 160, inside tensor a which ends at 164"
    );
    let same = Raw::header(2, 0)
        .tensor("a", &[4], 0, 0)
        .tensor("b", &[4], 0, 0);
    assert_eq!(
        same.error(4096),
        "m.gguf: tensor b: starts at byte 96, inside tensor a which ends at 112"
    );
}

#[test]
fn tensor_names_are_short_and_unique() {
    let two = Raw::header(2, 0)
        .tensor("a", &[4], 0, 0)
        .tensor("a", &[4], 0, 32);
    assert_eq!(two.error(4096), "m.gguf: tensor a: is there twice");
    let long = Raw::header(1, 0).tensor(&"x".repeat(129), &[4], 0, 0);
    assert_eq!(
        long.error(4096),
        "m.gguf: tensor 0: name is 129 bytes long, at most 128 are allowed"
    );
    let empty = Raw::header(1, 0).tensor("", &[4], 0, 0);
    assert_eq!(empty.error(4096), "m.gguf: tensor 0: name is empty");
    let lines = Raw::header(1, 0).tensor("a\nb\x1b[2J", &[4], 0, 1);
    assert_eq!(
        lines.error(4096),
        "m.gguf: tensor a\\nb\\u{1b}[2J: offset 1 is not a multiple of the alignment 32"
    );
}

/// A file of any length: its first bytes, then zeros; counts what is read.
struct Sparse {
    head: Vec<u8>,
    len: u64,
    read: Cell<u64>,
    longest: Cell<usize>,
}

impl WeightSource for Sparse {
    fn name(&self) -> &str {
        "big.gguf"
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            check_range("big.gguf", offset, out.len() as u64, self.len)?;
            self.read.set(self.read.get() + out.len() as u64);
            self.longest.set(self.longest.get().max(out.len()));
            out.fill(0);
            let start = self.head.len().min(offset as usize);
            let n = out.len().min(self.head.len() - start);
            out[..n].copy_from_slice(&self.head[start..start + n]);
            Ok(())
        })
    }
}

fn sparse(head: Vec<u8>) -> (Sparse, Result<GgufHeader>) {
    let (read, longest) = (Cell::new(0), Cell::new(0));
    let source = Sparse {
        head,
        len: 16 << 30,
        read,
        longest,
    };
    let header = pollster::block_on(GgufHeader::read(&source, 0));
    (source, header)
}

#[test]
fn only_the_header_of_a_large_file_is_read() {
    let (source, header) = sparse(sample().to_bytes().unwrap());
    assert_eq!(header.unwrap().tensors.len(), 3);
    assert_eq!(source.read.get(), 1 << 20);
}

#[test]
fn headers_longer_than_a_piece_are_read_in_pieces() {
    let words: Vec<String> = (0..200_000).map(|i| format!("token number {i}")).collect();
    let tokens: Strings = words.iter().collect();
    let bytes = sample()
        .metadata("tokens", MetaValue::Array(MetaArray::String(tokens)))
        .metadata(
            "scores",
            MetaValue::Array(MetaArray::F32(vec![0.5; 700_000])),
        )
        .to_bytes()
        .unwrap();
    let (source, header) = sparse(bytes.clone());
    let header = header.unwrap();
    assert!(
        header
            .metadata
            .strings("tokens")
            .unwrap()
            .iter()
            .eq(words.iter())
    );
    assert_eq!(header.metadata.f32s("scores").unwrap(), [0.5; 700_000]);
    assert!(source.longest.get() <= 4 << 20);
    assert!(source.read.get() < bytes.len() as u64 + (4 << 20));
}

#[test]
fn memory_is_bounded_in_a_large_file_too() {
    let array = |kind: u32| {
        let raw = Raw::header(0, 1).str(b"k").u32(9).u32(kind).u64(1 << 30);
        sparse(raw.0).1.unwrap_err().to_string()
    };
    for (kind, bytes) in [(0, 1 << 30), (8, 8_u64 << 30)] {
        assert!(
            array(kind).starts_with("big.gguf: key k: header needs ")
                && array(kind).ends_with("at most 33554432 are allowed"),
            "{kind} {bytes}: {}",
            array(kind)
        );
    }
    // Zeros behind the header: names of length 0, or keys of length 0, from the first on.
    let (source, header) = sparse(Raw::header(1 << 28, 0).0);
    assert_eq!(
        header.unwrap_err().to_string(),
        "big.gguf: tensor 0: name is empty"
    );
    assert_eq!(source.read.get(), 1 << 20);
}

#[test]
fn writer_refuses_wrong_sizes() {
    let text = |w: Writer| w.to_bytes().unwrap_err().to_string();
    assert_eq!(
        text(Writer::new().tensor("w", DType::Q8_0, &[2, 32], vec![0; 67])),
        "tensor w: 67 bytes given for q8_0 [2, 32]"
    );
    assert_eq!(
        text(Writer::new().tensor("w", DType::U32, &[1], vec![0; 4])),
        "tensor w: type u32 in GGUF; supported: the weight types"
    );
}

/// What an accepted header promises.
fn check_promises(header: &GgufHeader, len: u64) {
    for t in &header.tensors {
        assert!(t.shape.iter().all(|&d| d > 0));
        assert!(t.offset >= header.data_offset && t.offset + t.bytes <= len);
        let row = t.dtype.bytes(t.row_len()).unwrap();
        assert_eq!((row * t.rows()) as u64, t.bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..400), start in 0..3) {
        let mut bytes = match start {
            0 => Vec::new(),
            1 => b"GGUF\x03\0\0\0".to_vec(),
            _ => Raw::header(1, 1).str(b"k").0,
        };
        bytes.extend(&tail);
        if let Ok(header) = parse(&bytes) {
            check_promises(&header, bytes.len() as u64);
        }
    }

    #[test]
    fn mutated_headers_never_panic(edits in prop::collection::vec((0..900_usize, any::<u8>()), 1..6)) {
        let mut bytes = sample().to_bytes().unwrap();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        match parse(&bytes) {
            Ok(header) => check_promises(&header, bytes.len() as u64),
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }
}
