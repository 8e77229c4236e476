//! SHA-256, which browsers compute of whole buffers only.

use sha2::Digest;
use wasm_bindgen::prelude::*;

/// The checksum of bytes that come one after the other.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// Of nothing yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Lower-case hex of all bytes so far; the next one begins anew.
    pub fn finish(&mut self) -> String {
        let digest = self.0.finalize_reset();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_abc_is_the_standards() {
        // FIPS 180-4, example of SHA-256.
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut hash = Sha256::new();
        for _ in 0..2 {
            hash.update(b"a");
            hash.update(b"bc");
            assert_eq!(hash.finish(), want);
        }
    }
}
