//! The Hugging Face hub as a source.

use std::time::Duration;

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Repo, RepoType};
use ureq::http::StatusCode;
use ureq::http::header::CONTENT_RANGE;

use super::catalogue::HubFile;
use super::fetch::{FetchError, Part, Source};

/// A network that swallows packets must not hold up the next source for long.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of a server that was reached.
const IDLE: Duration = Duration::from_secs(30);

/// One file of the hub. The crate hf-hub knows the endpoint (or takes it from `HF_ENDPOINT`, as
/// Python's client does); the request is our own, because the crate sets no time-outs and keeps a cache
/// of its own that would hold every model twice.
pub struct Hub {
    file: HubFile,
    endpoint: Option<String>,
}

impl Hub {
    /// The file `file` names.
    pub fn new(file: &HubFile) -> Self {
        Hub {
            file: file.clone(),
            endpoint: None,
        }
    }

    fn url(&self) -> Result<String, FetchError> {
        let mut builder = ApiBuilder::from_env();
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(FetchError::source)?;
        let repo = Repo::with_revision(
            self.file.repo.to_owned(),
            RepoType::Model,
            self.file.revision.to_owned(),
        );
        Ok(api.repo(repo).url(self.file.file))
    }
}

impl Source for Hub {
    fn name(&self) -> &'static str {
        "the Hugging Face hub"
    }

    fn resumes(&self) -> bool {
        true
    }

    fn fetch(&self, part: &mut Part<'_>) -> Result<(), FetchError> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(IDLE))
            .timeout_per_read(Some(IDLE))
            .user_agent(concat!("shardlight/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let mut request = agent.get(self.url()?).header("Accept-Encoding", "identity");
        if part.len() > 0 {
            request = request.header("Range", format!("bytes={}-", part.len()));
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(ureq::Error::StatusCode(416)) => {
                // It thinks that the file is shorter than what we have: ours is not a part of it.
                part.restart()?;
                return Err(FetchError::source("does not have that many bytes"));
            }
            Err(error) => return Err(FetchError::source(error)),
        };
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|range| range.to_str().ok())
                .is_some_and(|range| range.starts_with(&format!("bytes {}-", part.len())));
        if !goes_on {
            if response.status() != StatusCode::OK {
                return Err(FetchError::source(format!(
                    "answers {} where a file was expected",
                    response.status()
                )));
            }
            part.restart()?;
        }
        part.append(&mut response.into_body().into_reader())
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
