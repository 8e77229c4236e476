//! Where a model's bytes are in a browser: a file or blob, an address, or the origin private file system.
//!
//! None of them is ever whole in wasm memory.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, ArrayBuffer, Reflect, Uint8Array};
use shardlight::weights::WeightSource;
use shardlight::weights::source::{LocalFuture, check_range};
use shardlight::{Error, Result};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemReadWriteOptions,
    FileSystemSyncAccessHandle, Headers, Request, RequestInit, Response,
};

use crate::browser;

/// Least bytes asked of a server at once: headers are read in small steps. Also what is read in the time of
/// one more request, or of one more slice of a file.
const READ_AHEAD: u64 = 1 << 20;

/// The sources that a JavaScript value means: `"opfs:NAME"`, an address, a `File` or `Blob`, a stored file
/// (`{ name, handle }`), an `ArrayBuffer` or typed array, or an array of these (config.json, *.safetensors, …). Built-in models are files beside the wasm,
/// which www/src/source.ts fetches.
pub async fn sources(value: &JsValue) -> Result<Vec<Rc<dyn WeightSource>>> {
    let Some(list) = value.dyn_ref::<Array>() else {
        return Ok(vec![source(value).await?]);
    };
    let mut found = Vec::new();
    for value in list.iter() {
        found.push(source(&value).await?);
    }
    Ok(found)
}

async fn source(value: &JsValue) -> Result<Rc<dyn WeightSource>> {
    if let Some(name) = value.as_string() {
        return if let Some(name) = name.strip_prefix("opfs:") {
            opfs(name).await
        } else {
            http(&name).await
        };
    }
    if let Some(stored) = Stored::of(value)? {
        return Ok(Rc::new(stored));
    }
    if let Some(file) = value.dyn_ref::<File>() {
        return Ok(Rc::new(BlobSource::new(file.name(), file.clone().into())));
    }
    if let Some(blob) = value.dyn_ref::<Blob>() {
        return Ok(Rc::new(BlobSource::new("blob".into(), blob.clone())));
    }
    if value.is_instance_of::<ArrayBuffer>() || ArrayBuffer::is_view(value) {
        let blob = Blob::new_with_u8_array_sequence(&Array::of1(value))
            .map_err(|e| Error::io("bytes", browser::reason(&e)))?;
        return Ok(Rc::new(BlobSource::new("bytes".into(), blob)));
    }
    Err(Error::Invalid(
        "a model is an address, opfs:NAME, a File, a Blob, bytes, or an array of these".into(),
    ))
}

/// A `File` or `Blob`; the browser reads it from disk slice by slice.
struct BlobSource {
    name: String,
    blob: Blob,
}

impl BlobSource {
    fn new(name: String, blob: Blob) -> Self {
        BlobSource { name, blob }
    }
}

impl WeightSource for BlobSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.blob.size() as u64
    }

    fn seek_bytes(&self) -> u64 {
        READ_AHEAD
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let wanted = out.len() as u64;
            check_range(&self.name, offset, wanted, self.len())?;
            let io = |e: JsValue| Error::io(&self.name, browser::reason(&e));
            let end = (offset + wanted) as f64;
            let slice = (self.blob)
                .slice_with_f64_and_f64(offset as f64, end)
                .map_err(io)?;
            let buffer = JsFuture::from(slice.array_buffer()).await.map_err(io)?;
            copy(&self.name, &buffer, out)
        })
    }
}

/// A file of the origin private file system that is open for reading, `{ name, handle }`: what is read comes
/// straight into wasm memory, many times faster than from a `File`.
struct Stored {
    name: String,
    len: u64,
    handle: FileSystemSyncAccessHandle,
}

impl Stored {
    fn of(value: &JsValue) -> Result<Option<Self>> {
        let field = |name: &str| Reflect::get(value, &name.into()).ok();
        let Some(handle) = field("handle") else {
            return Ok(None);
        };
        let Ok(handle) = handle.dyn_into::<FileSystemSyncAccessHandle>() else {
            return Ok(None);
        };
        let name = field("name").and_then(|name| name.as_string());
        let name = name.unwrap_or_else(|| "a stored file".into());
        let len = handle.get_size();
        let len = len.map_err(|e| Error::io(&name, browser::reason(&e)))? as u64;
        Ok(Some(Stored { name, len, handle }))
    }
}

impl WeightSource for Stored {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let wanted = out.len();
            check_range(&self.name, offset, wanted as u64, self.len)?;
            let options = FileSystemReadWriteOptions::new();
            options.set_at(offset as f64);
            let read = self.handle.read_with_u8_array_and_options(out, &options);
            let read = read.map_err(|e| Error::io(&self.name, browser::reason(&e)))?;
            if read as usize != wanted {
                let reason = format!("{read} bytes came, {wanted} asked for");
                return Err(Error::io(&self.name, reason));
            }
            Ok(())
        })
    }
}

/// A file of the origin private file system.
async fn opfs(name: &str) -> Result<Rc<dyn WeightSource>> {
    let place = format!("opfs:{name}");
    let io = |e: JsValue| Error::io(&place, browser::reason(&e));
    let folder: FileSystemDirectoryHandle = JsFuture::from(browser::opfs().map_err(io)?)
        .await
        .map_err(io)?
        .unchecked_into();
    let handle: FileSystemFileHandle = JsFuture::from(folder.get_file_handle(name))
        .await
        .map_err(io)?
        .unchecked_into();
    let file = JsFuture::from(handle.get_file()).await.map_err(io)?;
    Ok(Rc::new(BlobSource::new(
        place.clone(),
        file.unchecked_into(),
    )))
}

/// A file on a server that understands byte ranges.
struct HttpRangeSource {
    url: String,
    len: u64,
    /// The bytes that came last, and where they begin.
    last: RefCell<(u64, Vec<u8>)>,
}

/// Asks for the first byte: the answer tells whether the server knows ranges, and the length.
async fn http(url: &str) -> Result<Rc<dyn WeightSource>> {
    let response = get(url, "GET", Some((0, 1))).await?;
    if response.status() == 206 {
        let len = match total(&response) {
            Some(len) => len,
            // Servers elsewhere do not always show Content-Range, but always the length of the whole.
            None => {
                let head = get(url, "HEAD", None).await?;
                let len = header(&head, "Content-Length").and_then(|len| len.parse().ok());
                len.ok_or_else(|| Error::io(url, "the server does not tell the file's length"))?
            }
        };
        return Ok(Rc::new(HttpRangeSource {
            url: url.to_string(),
            len,
            last: RefCell::default(),
        }));
    }
    // No ranges: the browser keeps the whole file, on disk where it sees fit.
    let io = |e: JsValue| Error::io(url, browser::reason(&e));
    let blob = JsFuture::from(response.blob().map_err(io)?)
        .await
        .map_err(io)?;
    Ok(Rc::new(BlobSource::new(
        url.to_string(),
        blob.unchecked_into(),
    )))
}

impl WeightSource for HttpRangeSource {
    fn name(&self) -> &str {
        &self.url
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn seek_bytes(&self) -> u64 {
        READ_AHEAD
    }

    fn read<'a>(&'a self, offset: u64, out: &'a mut [u8]) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let wanted = out.len() as u64;
            check_range(&self.url, offset, wanted, self.len)?;
            if self.copy_last(offset, out) {
                return Ok(());
            }
            let ahead = wanted.max(READ_AHEAD).min(self.len - offset);
            let response = get(&self.url, "GET", Some((offset, ahead))).await?;
            if response.status() != 206 {
                let reason = format!("status {} to a byte range", response.status());
                return Err(Error::io(&self.url, reason));
            }
            let io = |e: JsValue| Error::io(&self.url, browser::reason(&e));
            let buffer = JsFuture::from(response.array_buffer().map_err(io)?)
                .await
                .map_err(io)?;
            if ahead == wanted {
                return copy(&self.url, &buffer, out);
            }
            let mut bytes = vec![0; ahead as usize];
            copy(&self.url, &buffer, &mut bytes)?;
            out.copy_from_slice(&bytes[..out.len()]);
            *self.last.borrow_mut() = (offset, bytes);
            Ok(())
        })
    }
}

impl HttpRangeSource {
    fn copy_last(&self, offset: u64, out: &mut [u8]) -> bool {
        let last = self.last.borrow();
        let start = offset.checked_sub(last.0).map(|start| start as usize);
        let found = start.and_then(|start| last.1.get(start..)?.get(..out.len()));
        if let Some(found) = found {
            out.copy_from_slice(found);
        }
        found.is_some()
    }
}

/// Fetches `url`, or `range.1` bytes of it from `range.0`.
async fn get(url: &str, method: &str, range: Option<(u64, u64)>) -> Result<Response> {
    let io = |e: JsValue| Error::io(url, browser::reason(&e));
    let headers = Headers::new().map_err(io)?;
    if let Some((start, bytes)) = range {
        let range = format!("bytes={start}-{}", start + bytes - 1);
        headers.set("Range", &range).map_err(io)?;
    }
    let init = RequestInit::new();
    init.set_method(method);
    init.set_headers(&headers);
    let request = Request::new_with_str_and_init(url, &init).map_err(io)?;
    let response = JsFuture::from(browser::fetch(&request).map_err(io)?).await;
    let response: Response = response.map_err(io)?.unchecked_into();
    if !response.ok() {
        let reason = format!("status {} {}", response.status(), response.status_text());
        return Err(Error::io(url, reason.trim()));
    }
    Ok(response)
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).ok().flatten()
}

/// Length of the whole file, from `Content-Range: bytes 0-0/1234`.
fn total(response: &Response) -> Option<u64> {
    let range = header(response, "Content-Range")?;
    range.rsplit_once('/')?.1.trim().parse().ok()
}

fn copy(name: &str, buffer: &JsValue, out: &mut [u8]) -> Result<()> {
    let bytes = Uint8Array::new(buffer);
    if bytes.length() as usize != out.len() {
        let reason = format!("{} bytes came, {} asked for", bytes.length(), out.len());
        return Err(Error::io(name, reason));
    }
    bytes.copy_to(out);
    Ok(())
}
