//! Writes the CUDA C++ of WGSL files: `wgsl-to-cuda FOLDER FILE.wgsl…` gives FOLDER/FILE.cu for each.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use naga::valid::{Capabilities, ValidationFlags, Validator};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: wgsl-to-cuda FOLDER FILE.wgsl…")?;
    for file in arguments {
        let text = translate(&fs::read_to_string(&file)?).map_err(|e| format!("{file}: {e}"))?;
        let name = Path::new(&file).with_extension("cu");
        let name = name.file_name().ok_or("a file has a name")?;
        fs::write(Path::new(&folder).join(name), text)?;
    }
    Ok(())
}

fn translate(wgsl: &str) -> Result<String, Box<dyn Error>> {
    // Browsers want this line, naga does not know it.
    let wgsl = wgsl.replace("enable subgroups;", "");
    let module = naga::front::wgsl::parse_str(&wgsl).map_err(|e| e.emit_to_string(&wgsl))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator
        .validate(&module)
        .map_err(|e| e.emit_to_string(&wgsl))?;
    let entry = module.entry_points.first().ok_or("no entry point")?;
    let options = naga_cuda::Options::new(&entry.name);
    Ok(naga_cuda::write(&module, &info, &options)?.source)
}
