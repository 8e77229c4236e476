//! Writes the JavaScript and TypeScript glue of a wasm-bindgen module, as `wasm-bindgen --target web` does.
//!
//! `shardlight-bindgen INPUT.wasm OUTPUT_FOLDER [NAME]` writes `NAME.js`, `NAME.d.ts` and `NAME_bg.wasm`
//! (`NAME` is the input's stem unless given). A program of our own, so that Cargo.lock keeps the generator
//! at the version of the `wasm-bindgen` crate: the two must be equal.

use std::{env, path::Path};

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (input, folder, name) = match &args[..] {
        [input, folder] => (input, folder, None),
        [input, folder, name] => (input, folder, Some(name)),
        _ => bail!("usage: shardlight-bindgen INPUT.wasm OUTPUT_FOLDER [NAME]"),
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(input).web(true)?.typescript(true);
    // A bundler resolves `new URL("x_bg.wasm", import.meta.url)` only when the path is spelled out.
    bindgen.omit_default_module_path(false);
    if let Some(name) = name {
        bindgen.out_name(name);
    }
    bindgen
        .generate(Path::new(folder))
        .with_context(|| format!("{input}: cannot generate bindings into {folder}"))
}
