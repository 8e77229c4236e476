use ::safetensors::tensor::{TensorView, serialize};
use proptest::prelude::*;

use super::*;
use crate::weights::BytesSource;

fn parse(bytes: &[u8]) -> Result<SafetensorsHeader> {
    let source = BytesSource::new("m.safetensors", bytes.to_vec());
    pollster::block_on(SafetensorsHeader::read(&source, 2))
}

fn file(json: &str, data: usize) -> Vec<u8> {
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json.as_bytes());
    out.resize(out.len() + data, 0);
    out
}

fn error(json: &str, data: usize) -> String {
    match parse(&file(json, data)) {
        Ok(header) => panic!("accepted: {header:?}"),
        Err(error) => error.to_string(),
    }
}

fn entry(name: &str, dtype: &str, shape: &str, from: u64, to: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
}

/// Two F32 tensors `a` and `b` of 2 elements at the given bytes, in a file of `data` bytes.
fn two(a: (u64, u64), b: (u64, u64), data: usize) -> String {
    let a = entry("a", "F32", "[2]", a.0, a.1);
    error(
        &format!("{{{a},{}}}", entry("b", "F32", "[2]", b.0, b.1)),
        data,
    )
}

/// A valid file written by the safetensors crate itself.
fn sample() -> Vec<u8> {
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [
        ("embed", view(Dtype::BF16, &[2, 3], &[1; 12])),
        ("norm", view(Dtype::F32, &[3], &[2; 12])),
        ("half", view(Dtype::F16, &[4, 1], &[3; 8])),
        ("ids", view(Dtype::I64, &[2], &[4; 16])),
        ("none", view(Dtype::F32, &[0, 7], &[])),
    ];
    let metadata = [("format".to_string(), "pt".to_string())].into();
    serialize(tensors, Some(metadata)).unwrap()
}

#[test]
fn files_of_the_safetensors_crate_are_read() {
    let bytes = sample();
    let header = parse(&bytes).unwrap();
    assert_eq!(header.metadata["format"], "pt");
    assert_eq!(header.tensors.len(), 3);
    let t = header.tensor("embed").unwrap();
    assert_eq!(
        (t.dtype, t.shape.as_slice(), t.file),
        (DType::BF16, &[2, 3][..], 2)
    );
    assert_eq!(bytes[t.offset as usize..][..t.bytes as usize], [1; 12]);
    let half = header.tensor("half").unwrap();
    assert_eq!(bytes[half.offset as usize..][..half.bytes as usize], [3; 8]);
}

#[test]
fn tensors_of_other_types_are_an_error_when_they_are_used() {
    let header = parse(&sample()).unwrap();
    let text = |name| header.tensor(name).unwrap_err().to_string();
    let supported = "supported: f32, f16, bf16 with at least one element";
    assert_eq!(
        text("ids"),
        format!("m.safetensors: tensor ids: has type I64; {supported}")
    );
    assert_eq!(
        text("none"),
        format!("m.safetensors: tensor none: has shape [0, 7]; {supported}")
    );
    assert_eq!(text("x"), "m.safetensors: has no tensor x");
    let json = format!("{{{}}}", entry("a", "Q9", "[5]", 0, 3));
    let header = parse(&file(&json, 3)).unwrap();
    assert_eq!(
        header.tensor("a").unwrap_err().to_string(),
        format!("m.safetensors: tensor a: has type Q9; {supported}")
    );
}

#[test]
fn truncated_header_is_an_error_at_every_length() {
    let bytes = sample();
    for n in 0..bytes.len() {
        let text = parse(&bytes[..n]).map(|_| ()).unwrap_err().to_string();
        assert!(
            text.starts_with("m.safetensors: ") && !text.contains('\n'),
            "{n}: {text}"
        );
    }
}

#[test]
fn header_length_is_compared_with_the_file() {
    let mut bytes = file("{}", 0);
    bytes[0] = 3;
    assert_eq!(
        parse(&bytes).unwrap_err().to_string(),
        "m.safetensors: header is 3 bytes long, at most 2 fit; file has 10 bytes"
    );
    bytes[..8].copy_from_slice(&(99_u64 << 32).to_le_bytes());
    assert_eq!(
        parse(&bytes).unwrap_err().to_string(),
        "m.safetensors: header is 425201762304 bytes long, at most 2 fit; file has 10 bytes"
    );
    let huge = [
        &(17_u64 << 20).to_le_bytes()[..],
        b"{",
        &vec![b' '; 18 << 20],
    ]
    .concat();
    assert_eq!(
        parse(&huge).unwrap_err().to_string(),
        "m.safetensors: header is 17825792 bytes long, at most 16777216 fit; file has 18874377 bytes"
    );
}

#[test]
fn holes_overlaps_and_tails_are_refused() {
    assert_eq!(
        two((0, 8), (12, 20), 20),
        "m.safetensors: tensor b: starts at byte 12 of the data; 4 bytes before it belong to no tensor"
    );
    assert_eq!(
        two((4, 12), (12, 20), 20),
        "m.safetensors: tensor a: starts at byte 4 of the data; 4 bytes before it belong to no tensor"
    );
    assert_eq!(
        two((0, 8), (4, 12), 12),
        "m.safetensors: tensor b: starts at byte 4 of the data, inside tensor a which ends at 8"
    );
    assert_eq!(
        two((0, 8), (8, 16), 17),
        "m.safetensors: 1 bytes after the last tensor belong to none"
    );
    assert_eq!(
        two((0, 8), (8, 16), 15),
        "m.safetensors: tensor b: ends at byte 16 of the data, which has 15 bytes"
    );
}

#[test]
fn sizes_wrap_nowhere_and_match_the_shape() {
    assert_eq!(
        two((0, 8), (16, 8), 16),
        "m.safetensors: tensor b: data ends at 8, before it starts at 16"
    );
    assert_eq!(
        two((0, 8), (8, 17), 17),
        "m.safetensors: tensor b: F32 [2] needs 8 bytes, it has 9"
    );
    let one = |shape, to| error(&format!("{{{}}}", entry("a", "F32", shape, 0, to)), 8);
    assert_eq!(
        one("[4294967296,4294967296]", 8),
        "m.safetensors: tensor a: F32 shape [4294967296, 4294967296] overflows"
    );
    assert_eq!(
        one("[1,1,1,1,1,1,1,1,2]", 8),
        "m.safetensors: header: invalid length 9, expected at most 8 dimensions at line 1 column 47"
    );
}

#[test]
fn duplicate_keys_are_refused() {
    let a = entry("a", "F32", "[2]", 0, 8);
    assert_eq!(
        error(&format!("{{{a},{a}}}"), 8),
        "m.safetensors: header: key a is there twice at line 1 column 57"
    );
    assert_eq!(
        error(r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0),
        "m.safetensors: header: key k is there twice at line 1 column 28"
    );
    assert_eq!(
        error(r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
        "m.safetensors: header: key __metadata__ is there twice at line 1 column 33"
    );
    let empty = entry("", "F32", "[2]", 0, 8);
    assert!(error(&format!("{{{empty}}}"), 8).contains("a tensor's name is empty"));
}

#[test]
fn other_files_are_refused_by_name() {
    let text = |bytes: &[u8]| parse(bytes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(text(b""), "m.safetensors: 0 bytes, not a model");
    let gguf = crate::weights::gguf::Writer::new().to_bytes().unwrap();
    assert_eq!(
        text(&gguf),
        "m.safetensors: a GGUF file, expected safetensors"
    );
    assert!(text(b"<html><body>Not found</body></html>").contains("an HTML or XML page"));
}

fn index(json: &str) -> Result<SafetensorsIndex> {
    SafetensorsIndex::parse("i.json", json.as_bytes())
}

#[test]
fn index_files_are_plain_names() {
    for bad in [
        "../a.safetensors",
        "d/a.safetensors",
        "d\\\\a.safetensors",
        "C:a.safetensors",
        "a.bin",
        "",
    ] {
        let text = index(&format!(r#"{{"weight_map":{{"w":"{bad}"}}}}"#))
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("i.json: tensor w: is in file")
                && text.ends_with("expected a plain name that ends in .safetensors"),
            "{bad}: {text}"
        );
    }
    assert_eq!(
        index(r#"{"weight_map":{}}"#).unwrap_err().to_string(),
        "i.json: weight_map names no tensors"
    );
    assert!(
        index(r#"{"weight_map":{"w":"a.safetensors","w":"a.safetensors"}}"#)
            .unwrap_err()
            .to_string()
            .contains("key w is there twice")
    );
}

#[test]
fn index_and_files_must_agree() {
    let json = r#"{"metadata":{"total_size":16},
        "weight_map":{"b":"m-2.safetensors","a":"m-1.safetensors"}}"#;
    let index = index(json).unwrap();
    assert_eq!(index.files, ["m-1.safetensors", "m-2.safetensors"]);
    let header = |name: &str| {
        parse(&file(
            &format!("{{{}}}", entry(name, "F32", "[2]", 0, 8)),
            8,
        ))
        .unwrap()
    };
    let all = index.collect(vec![header("a"), header("b")]).unwrap();
    assert_eq!(all.tensor("b").unwrap().bytes, 8);
    let text = |headers| index.collect(headers).unwrap_err().to_string();
    assert_eq!(
        text(vec![header("b"), header("a")]),
        "i.json: tensor b: is in file m-1.safetensors, the index says m-2.safetensors"
    );
    assert_eq!(
        text(vec![header("c"), header("b")]),
        "i.json: tensor c: is in file m-1.safetensors, not in the index"
    );
    assert_eq!(
        text(vec![header("a"), parse(&file("{}", 0)).unwrap()]),
        "i.json: tensor b: is not in file m-2.safetensors, where the index says it is"
    );
    assert_eq!(
        text(vec![header("a")]),
        "i.json: 1 headers given for 2 files"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![tail.len() as u8, 0, 0, 0, 0, 0, 0, 0, b'{'];
        bytes.extend(&tail);
        for bytes in [&bytes, &tail] {
            if let Ok(header) = parse(bytes) {
                prop_assert!(header.tensors.iter().all(|t| t.offset + t.bytes <= bytes.len() as u64));
            }
        }
    }

    #[test]
    fn mutated_headers_never_panic(edits in prop::collection::vec((0..600_usize, any::<u8>()), 1..4)) {
        let mut bytes = sample();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        match parse(&bytes) {
            Ok(header) => prop_assert!(header.tensors.iter().all(|t| t.offset + t.bytes <= bytes.len() as u64)),
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }
}
