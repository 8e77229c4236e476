//! A GGUF model in several files, as llama.cpp's `gguf-split` writes them: each has a header of its own with
//! `split.no`, `split.count` and `split.tensors.count`; the first has the model's metadata as well.

use std::rc::Rc;

use super::GgufHeader;
use crate::weights::WeightSource;
use crate::{Error, Result};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Most files of a model: their numbers have five digits.
const MOST_FILES: u32 = 99_999;

/// The names of all files of a split model, from the name of one: `m-00002-of-00003.gguf` gives three. `None` for
/// every other name.
pub fn names(one: &str) -> Option<Vec<String>> {
    let stem = one.strip_suffix(".gguf")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| {
        let good = text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        good.then(|| text.parse::<u32>().ok())?
    };
    let (number, count) = (digits(number)?, digits(count)?);
    let known = 1..=count;
    (known.contains(&number)).then(|| {
        known
            .map(|i| format!("{stem}-{i:05}-of-{count:05}.gguf"))
            .collect()
    })
}

/// Reads the headers of a model's files, which may come in any order, and makes one of them: the first file's
/// metadata, everybody's tensors. `sources` is put into the order of their numbers, which [`TensorInfo::file`] counts.
///
/// # Errors
///
/// Those of [`GgufHeader::read`]; [`Error::Invalid`] when files are missing or more than the model has, and
/// [`Error::Format`] when they do not belong together.
///
/// [`TensorInfo::file`]: crate::weights::TensorInfo::file
pub async fn read(sources: &mut Vec<Rc<dyn WeightSource>>) -> Result<GgufHeader> {
    let mut parts = Vec::with_capacity(sources.len());
    for source in sources.drain(..) {
        let header = GgufHeader::read(source.as_ref(), 0).await?;
        parts.push((Part::of(&header, source.name())?, source, header));
    }
    parts.sort_by_key(|(part, ..)| part.number);
    check(&parts)?;
    let tensors = parts[0].0.tensors;
    let mut whole: Option<GgufHeader> = None;
    for (file, (_, source, mut header)) in parts.into_iter().enumerate() {
        for tensor in &mut header.tensors {
            tensor.file = file;
        }
        sources.push(source);
        match &mut whole {
            None => whole = Some(header),
            Some(whole) => whole.tensors.append(&mut header.tensors),
        }
    }
    let whole = whole.ok_or_else(|| Error::Invalid("no model file given".into()))?;
    let first = sources[0].name();
    if let Some(wanted) = tensors.filter(|&n| n as usize != whole.tensors.len()) {
        let there = whole.tensors.len();
        let reason = format!("says {wanted}, the files have {there} tensors");
        return Err(Error::format(format_args!("{first}: {TENSORS}"), reason));
    }
    super::check_names(first, &whole.tensors)?;
    Ok(whole)
}

/// What a file says of its place.
struct Part {
    number: u32,
    count: u32,
    tensors: Option<u32>,
}

impl Part {
    fn of(header: &GgufHeader, file: &str) -> Result<Part> {
        let m = &header.metadata;
        let part = Part {
            number: m.opt_u32(NUMBER)?.unwrap_or(0),
            count: m.opt_u32(COUNT)?.unwrap_or(1),
            tensors: m.opt_u32(TENSORS)?,
        };
        if part.count == 0 || part.count > MOST_FILES || part.number >= part.count {
            let (number, count) = (part.number, part.count);
            let reason = format!("file {number} of {count}, counted from 0");
            return Err(Error::format(format_args!("{file}: {NUMBER}"), reason));
        }
        Ok(part)
    }
}

/// Is each file there once? `parts` are in order.
fn check(parts: &[(Part, Rc<dyn WeightSource>, GgufHeader)]) -> Result<()> {
    let Some((first, source, _)) = parts.first() else {
        return Err(Error::Invalid("no model file given".into()));
    };
    let count = first.count;
    if let Some((part, other, _)) = parts.iter().find(|(part, ..)| part.count != count) {
        return Err(Error::Format {
            place: other.name().to_string(),
            reason: format!(
                "a file of a model of {}; {} is of a model of {count}",
                part.count,
                source.name()
            ),
        });
    }
    for (i, pair) in parts.windows(2).enumerate() {
        let [(a, one, _), (b, other, _)] = pair else {
            continue;
        };
        if a.number == b.number {
            let (one, other) = (one.name(), other.name());
            return Err(Error::Invalid(format!(
                "{one} and {other} both are file {} of {count}; give each file of the model once",
                parts[i].0.number + 1
            )));
        }
    }
    let there = |number: u32| parts.iter().any(|(part, ..)| part.number == number);
    match (0..count).find(|&number| !there(number)) {
        Some(missing) => Err(Error::Invalid(format!(
            "{} is file {} of a model of {count}; file {} is missing: give all of them",
            source.name(),
            first.number + 1,
            missing + 1
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MetaValue, Writer};
    use super::*;
    use crate::DType;
    use crate::weights::BytesSource;

    fn part(number: u16, count: u16, tensors: i32, names: &[&str]) -> Rc<dyn WeightSource> {
        let mut file = Writer::new()
            .metadata(NUMBER, MetaValue::U16(number))
            .metadata(COUNT, MetaValue::U16(count))
            .metadata(TENSORS, MetaValue::I32(tensors));
        if number == 0 {
            file = file.metadata("general.name", MetaValue::String("split".into()));
        }
        for name in names {
            let bytes = vec![number as u8; 16];
            file = file.tensor(name, DType::F32, &[4], bytes);
        }
        let name = format!("m-{:05}-of-{count:05}.gguf", number + 1);
        Rc::new(BytesSource::new(name, file.to_bytes().unwrap()))
    }

    fn join(mut sources: Vec<Rc<dyn WeightSource>>) -> Result<(GgufHeader, Vec<String>)> {
        let header = pollster::block_on(read(&mut sources))?;
        let names = sources.iter().map(|s| s.name().to_string()).collect();
        Ok((header, names))
    }

    #[test]
    fn files_in_any_order_are_one_model() {
        let files = vec![
            part(2, 3, 4, &["d"]),
            part(0, 3, 4, &["a", "b"]),
            part(1, 3, 4, &["c"]),
        ];
        let (header, sources) = join(files).unwrap();
        let places: Vec<_> = (header.tensors.iter())
            .map(|t| (t.name.as_str(), t.file))
            .collect();
        assert_eq!(places, [("a", 0), ("b", 0), ("c", 1), ("d", 2)]);
        assert_eq!(header.metadata.str("general.name").unwrap(), "split");
        assert_eq!(sources, names("m-00002-of-00003.gguf").unwrap());
    }

    #[test]
    fn files_that_do_not_make_a_model() {
        let cases: [(Vec<Rc<dyn WeightSource>>, &str); 7] = [
            (
                vec![part(1, 3, 4, &["c"])],
                "m-00002-of-00003.gguf is file 2 of a model of 3; file 1 is missing: give all of them",
            ),
            (
                vec![part(0, 2, 1, &["a"])],
                "m-00001-of-00002.gguf is file 1 of a model of 2; file 2 is missing: give all of them",
            ),
            (
                vec![part(0, 2, 2, &["a"]), part(0, 2, 2, &["a"])],
                "m-00001-of-00002.gguf and m-00001-of-00002.gguf both are file 1 of 2; give each file of the model once",
            ),
            (
                vec![part(0, 2, 2, &["a"]), part(1, 3, 2, &["b"])],
                "m-00002-of-00003.gguf: a file of a model of 3; m-00001-of-00002.gguf is of a model of 2",
            ),
            (
                vec![part(0, 2, 5, &["a"]), part(1, 2, 5, &["b"])],
                "m-00001-of-00002.gguf: split.tensors.count: says 5, the files have 2 tensors",
            ),
            (
                vec![part(3, 2, 1, &["a"])],
                "m-00004-of-00002.gguf: split.no: file 3 of 2, counted from 0",
            ),
            (
                vec![part(0, 2, 2, &["a"]), part(1, 2, 2, &["a"])],
                "m-00001-of-00002.gguf: tensor a: is there twice",
            ),
        ];
        for (files, message) in cases {
            let error = join(files).unwrap_err().to_string();
            assert_eq!(error, message);
        }
        assert!(join(Vec::new()).is_err());
    }

    #[test]
    fn names_of_all_files() {
        assert_eq!(
            names("a/m-00001-of-00002.gguf").unwrap(),
            ["a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf"]
        );
        for other in [
            "m.gguf",
            "m-00001-of-00002.bin",
            "m-1-of-2.gguf",
            "m-00000-of-00002.gguf",
            "m-00003-of-00002.gguf",
            "m-00001-of-0000x.gguf",
            "-of-00001.gguf",
        ] {
            assert_eq!(names(other), None, "{other}");
        }
    }
}
