//! Model files as memory maps.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use shardlight::weights::source::{LocalFuture, MappedBytes, WeightSource, check_range};
use shardlight::{Error, Result};

/// A file mapped read-only: pages come in as they are touched, and devices that compute in host memory
/// use them in place.
pub struct MmapSource {
    name: String,
    file: File,
    map: Arc<Mmap>,
}

impl MmapSource {
    /// Maps `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it is missing, a folder, empty, or not readable.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let wrong = |error: std::io::Error| Error::io(&name, error);
        let file = File::open(path).map_err(wrong)?;
        let metadata = file.metadata().map_err(wrong)?;
        if metadata.is_dir() {
            return Err(Error::io(&name, "is a folder, not a file"));
        }
        if metadata.len() == 0 {
            return Err(Error::io(&name, "0 bytes, not a model"));
        }
        // SAFETY: the map is read-only and private to this process, and is only ever seen as `&[u8]`
        // through it. What is not excluded, here or by any user of mmap: another process that changes
        // the file (we would read other bytes: every parser and kernel treats them as untrusted, so
        // that is wrong numbers, not memory unsafety in practice) or cuts it (touching a page past the
        // new end is SIGBUS). `read` checks the length first, which leaves the use in place after
        // loading; our own cache replaces files by rename, so it never does either to a mapped one.
        let map = unsafe { Mmap::map(&file) }.map_err(wrong)?;
        Ok(MmapSource {
            name,
            file,
            map: Arc::new(map),
        })
    }
}

impl WeightSource for MmapSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            check_range(&self.name, offset, out.len() as u64, self.len())?;
            let now = self
                .file
                .metadata()
                .map_err(|error| Error::io(&self.name, error))?
                .len();
            if now < self.len() {
                return Err(Error::io(
                    &self.name,
                    format!("was cut to {now} bytes while in use, it had {}", self.len()),
                ));
            }
            let start = offset as usize;
            out.copy_from_slice(&self.map[start..start + out.len()]);
            Ok(())
        })
    }

    fn mapped(&self) -> Option<MappedBytes> {
        let bytes: MappedBytes = Arc::clone(&self.map) as MappedBytes;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ranges_and_refuses_those_outside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        std::fs::write(&path, b"0123456789").unwrap();
        let source = MmapSource::open(&path).unwrap();
        let mut out = [0; 4];
        pollster::block_on(source.read(3, &mut out)).unwrap();
        assert_eq!(&out, b"3456");
        assert_eq!((*source.mapped().unwrap()).as_ref(), b"0123456789");
        for offset in [7, 10, u64::MAX] {
            assert!(
                pollster::block_on(source.read(offset, &mut out)).is_err(),
                "{offset}"
            );
        }
    }

    #[test]
    fn a_file_cut_after_mapping_is_an_error_not_a_signal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let source = MmapSource::open(&path).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(10)
            .unwrap();
        let error = pollster::block_on(source.read(90_000, &mut [0; 16])).unwrap_err();
        assert!(error.to_string().contains("cut to 10 bytes"), "{error}");
    }

    #[test]
    fn missing_empty_and_folder_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        for (path, text) in [
            (folder.path().join("none"), "none"),
            (empty, "0 bytes, not a model"),
            (folder.path().to_owned(), "is a folder"),
        ] {
            let error = MmapSource::open(&path).err().unwrap().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
