use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::models::cache::{Cache, sha256};
use crate::models::catalogue::{Entry, Wheel};
use crate::models::fetch::ensure;
use crate::ui::Ui;

const FILE: HubFile = HubFile {
    repo: "who/what",
    revision: "abc",
    file: "dir/x.gguf",
};

/// A hub of one file: answers each connection with `answer(request head, body)`.
struct Server {
    endpoint: String,
    heads: Arc<Mutex<Vec<String>>>,
}

fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    // The thread ends with the test process: there is no last connection to wait for.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = String::new();
            for line in BufReader::new(&stream).lines() {
                let line = line.unwrap();
                if line.is_empty() {
                    break;
                }
                head += &line.to_lowercase();
                head.push('\n');
            }
            seen.lock().unwrap().push(head.clone());
            answer(&head, &mut stream);
        }
    });
    Server { endpoint, heads }
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|i| (i * 7 + i / 255) as u8).collect()
}

fn range_start(head: &str) -> Option<usize> {
    let line = head.lines().find(|line| line.starts_with("range:"))?;
    line.trim_start_matches("range: bytes=")
        .trim_end_matches('-')
        .parse()
        .ok()
}

fn send_all(stream: &mut TcpStream, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The client may hang up early; that is its business.
    let _ = stream.write_all(body);
}

fn get(server: &Server) -> (tempfile::TempDir, anyhow::Result<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    std::fs::write(&original, content()).unwrap();
    let entry = Entry {
        name: "test:hub",
        about: "",
        license: "",
        file: "x.gguf",
        bytes: content().len() as u64,
        sha256: sha256(&original, &mut |_| {}).unwrap().leak(),
        hub: FILE,
        wheel: Wheel {
            requirement: "",
            bytes: 0,
            member: "",
        },
    };
    let hub = Hub {
        file: FILE,
        endpoint: Some(server.endpoint.clone()),
    };
    let cache = Cache::at(folder.path());
    let got = ensure(&entry, &cache, &[&hub], false, Ui::new(true))
        .map(|path| std::fs::read(path).unwrap());
    (folder, got)
}

#[test]
fn asks_for_the_pinned_revision() {
    let server = serve(|_, stream| send_all(stream, &content()));
    assert!(get(&server).1.unwrap() == content());
    let heads = server.heads.lock().unwrap();
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0].starts_with("get /who/what/resolve/abc/dir/x.gguf "),
        "{}",
        heads[0]
    );
}

#[test]
fn resumes_with_a_range_after_the_connection_broke() {
    let server = serve(|head, stream| {
        let all = content();
        match range_start(head) {
            None => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", all.len());
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&all[..40_000]).unwrap();
            }
            Some(start) => {
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nConnection: close\r\n\r\n",
                    all.len() - start,
                    all.len() - 1,
                    all.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&all[start..]).unwrap();
            }
        }
    });
    assert!(get(&server).1.unwrap() == content());
    let heads = server.heads.lock().unwrap();
    assert_eq!(
        heads
            .iter()
            .map(|head| range_start(head))
            .collect::<Vec<_>>(),
        [None, Some(40_000)]
    );
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let server = serve(move |_, stream| {
        let all = content();
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", all.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&all[..100]).unwrap();
        } else {
            send_all(stream, &all);
        }
    });
    assert!(get(&server).1.unwrap() == content());
}

#[test]
fn a_page_instead_of_the_file_is_refused() {
    let server = serve(|_, stream| send_all(stream, b"<html>log in first</html>"));
    let error = get(&server).1.unwrap_err().to_string();
    assert!(error.contains("ended after 25 of 100000"), "{error}");
}

#[test]
fn not_found_and_refused_connections_fall_through() {
    let server = serve(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
    });
    let error = get(&server).1.unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let closed = Server {
        endpoint,
        heads: Arc::default(),
    };
    let started = std::time::Instant::now();
    assert!(get(&closed).1.is_err());
    assert!(started.elapsed() < CONNECT + Duration::from_secs(1));
}

#[test]
fn a_redirect_to_another_host_is_followed() {
    let files = serve(|_, stream| send_all(stream, &content()));
    let location = files.endpoint.clone();
    let server = serve(move |_, stream| {
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}/blob\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
    });
    assert!(get(&server).1.unwrap() == content());
}
