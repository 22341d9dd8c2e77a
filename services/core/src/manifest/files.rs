use serde::Deserialize;

use super::Lines;
use crate::{Result, context::Secret};

/// What clients upload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// The largest file, in bytes. Default 512 MiB, as OpenAI has it.
    pub max_bytes: u64,
    /// What all files of a tenant may have together, in bytes; each file counts, also where two have the same content.
    /// Default 0: no limit.
    pub max_tenant_bytes: u64,
    /// Where contents lie. Without it: `files` in the distribution's folder.
    pub s3: Option<S3>,
}

/// A bucket of S3, or of what speaks as S3 does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    pub bucket: String,
    /// Before every key. Default: none.
    #[serde(default)]
    pub prefix: String,
    /// Default: `AWS_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// `https://host:port` of another service than Amazon's; the bucket is a part of the path then.
    pub endpoint: Option<String>,
    /// Allows an endpoint without TLS. Default false.
    #[serde(default)]
    pub allow_http: bool,
    /// Default: `AWS_ACCESS_KEY_ID`, else what the machine, the container or the pod is given.
    pub access_key_id: Option<String>,
    /// Default: `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Option<Secret>,
    /// How long the service may say nothing. Default 30.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
}

fn default_timeout() -> u64 {
    30
}

impl Default for Files {
    fn default() -> Self {
        Self { max_bytes: 512 << 20, max_tenant_bytes: 0, s3: None }
    }
}

impl Files {
    pub(super) fn validate(&self, lines: &Lines) -> Result<()> {
        let Some(s3) = &self.s3 else { return Ok(()) };
        if s3.bucket.is_empty() || s3.bucket.contains('/') {
            return Err(lines.error("files.s3.bucket", "must be the name of a bucket"));
        }
        if let Some(endpoint) = &s3.endpoint {
            let plain = endpoint.starts_with("http://");
            if !plain && !endpoint.starts_with("https://") {
                return Err(lines.error("files.s3.endpoint", "must begin with https://"));
            }
            if plain && !s3.allow_http {
                return Err(lines.error("files.s3.endpoint", "is without TLS: it needs https://, or allow_http: true"));
            }
        }
        if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
            return Err(lines.error("files.s3", "needs access_key_id and secret_access_key together"));
        }
        if !(1..=600).contains(&s3.timeout_seconds) {
            return Err(lines.error("files.s3.timeout_seconds", &format!("is {}; it must be 1 to 600", s3.timeout_seconds)));
        }
        Ok(())
    }
}
