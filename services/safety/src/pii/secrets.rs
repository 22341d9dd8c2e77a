//! What lets its holder in: tokens by the shapes that their issuers publish, keys, and passwords by where they stand.

use std::ops::Range;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use llama_stack_core::Result;
use regex::Captures;

use super::{Detector, Kind, before, checks, group, whole};

/// Shapes that nothing else has: prefix and length are the issuers' own.
const SHAPES: [(Kind, &str); 27] = [
    (Kind::AwsKey, r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    (Kind::GithubToken, r"\bgithub_pat_[0-9A-Za-z]{22}_[0-9A-Za-z]{59}\b"),
    (Kind::GitlabToken, r"\bgl(?:pat|dt|rt|oas|ptt|cbt|ft|imt|agent|soat|ffct)-[0-9A-Za-z_=.-]{20,}"),
    (Kind::SlackToken, r"\bxox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}"),
    (Kind::SlackToken, r"\bxapp-[0-9]-[A-Z0-9]+-[0-9]+-[0-9a-f]{32,}\b"),
    (Kind::SlackToken, r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}"),
    (Kind::StripeKey, r"\b(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{16,}\b"),
    (Kind::StripeKey, r"\bwhsec_[0-9A-Za-z+/]{32,}={0,2}"),
    (Kind::OpenaiKey, r"\bsk-(?:proj-|svcacct-|admin-|None-)?[0-9A-Za-z_-]{16,}T3BlbkFJ[0-9A-Za-z_-]{16,}"),
    (Kind::OpenaiKey, r"\bsk-ant-(?:api|admin|oat)[0-9]{2}-[0-9A-Za-z_-]{60,}"),
    (Kind::OpenaiKey, r"\bsk-(?:proj-|or-v1-|svcacct-)[0-9A-Za-z_-]{20,}"),
    (Kind::OpenaiKey, r"\b(?:hf|gsk|r8|pplx|xai)[_-][0-9A-Za-z]{32,}\b"),
    (Kind::GoogleKey, r"\bAIza[0-9A-Za-z_-]{35}"),
    (Kind::GoogleKey, r"\bGOCSPX-[0-9A-Za-z_-]{28}"),
    (Kind::GoogleKey, r"\bya29\.[0-9A-Za-z_-]{20,}"),
    (Kind::ServiceToken, r"\bSG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}"),
    (Kind::ServiceToken, r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    (Kind::ServiceToken, r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
    (Kind::ServiceToken, r"\bpypi-AgE[0-9A-Za-z_-]{50,}"),
    (Kind::ServiceToken, r"\b[0-9]{8,10}:AA[0-9A-Za-z_-]{33}\b"),
    (Kind::ServiceToken, r"\bdapi[0-9a-f]{32}(?:-[0-9])?\b"),
    (Kind::ServiceToken, r"\bsq0(?:atp|csp)-[0-9A-Za-z_-]{22,43}"),
    (Kind::ServiceToken, r"\b(?:lin_api|figd|sbp|dckr_pat|rubygems|vercel|glsa|nfp)_[0-9A-Za-z_-]{20,}"),
    (Kind::ServiceToken, r"\bhv[sbr]\.[0-9A-Za-z_-]{24,}"),
    (Kind::ServiceToken, r"\bAGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}\b"),
    (Kind::ServiceToken, r"(?i)\bAccountKey=[0-9A-Za-z+/]{86}=="),
    (Kind::ServiceToken, r"\bey[0-9A-Za-z]{18,40}\.atlasv1\.[0-9A-Za-z_-]{60,}"),
];

/// `name = value`, as programs, shells, configuration files and people write it.
const ASSIGNMENT: &str = r#"(?i)(?:(?:passwor[dt]|passwd|passphrase|pwd|kennwort|mot de passe|contraseña|secret|token|api[ _-]?key|apikey|access[ _-]?key|private[ _-]?key|client[ _-]?secret|auth[ _-]?key|credentials?)[a-z0-9_]*)["'`\]]{0,2}\s{0,3}(?:=>|:=|==?|:|\bis\b|->)\s{0,3}\\?["'`]?([^\s"'`,;<>(){}\[\]\\]{6,})"#;

pub(super) fn detectors() -> Result<Vec<Detector>> {
    let mut all = Vec::new();
    for (kind, shape) in SHAPES {
        all.push(Detector::new(kind, shape, whole)?);
    }
    all.push(Detector::new(Kind::AwsKey, r#"(?i)aws[a-z0-9_ .-]{0,24}(?:secret|private)[a-z0-9_ .-]{0,24}["']?\s{0,3}(?:=>?|:|is)\s{0,3}["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)"#, group)?);
    all.push(Detector::new(Kind::GithubToken, r"\bgh[pousr]_([0-9A-Za-z]{30})([0-9A-Za-z]{6})\b", github)?);
    all.push(Detector::new(Kind::ServiceToken, r"\bnpm_([0-9A-Za-z]{30})([0-9A-Za-z]{6})\b", github)?);
    all.push(Detector::new(Kind::PrivateKey, r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----", private_key)?);
    all.push(Detector::new(Kind::PrivateKey, r"\b[5KL9c][1-9A-HJ-NP-Za-km-z]{50,51}\b", wallet_key)?);
    all.push(Detector::new(Kind::Jwt, r"\b(eyJ[0-9A-Za-z_-]{8,})\.[0-9A-Za-z_-]{4,}\.[0-9A-Za-z_-]*", jwt)?);
    all.push(Detector::new(Kind::BasicAuth, r#"\b[a-z][a-z0-9+.-]{1,20}://([^\s/:@"'<>]{0,}:[^\s/@"'<>]{1,})@"#, url_user)?);
    all.push(Detector::new(Kind::BasicAuth, r"(?i)\bauthorization\b[^\n]{0,5}\bbasic\s+([A-Za-z0-9+/]{8,}={0,2})", group)?);
    all.push(Detector::new(Kind::ServiceToken, r"(?i)\bauthorization\b[^\n]{0,5}\b(?:bearer|token)\s+([A-Za-z0-9._~+/-]{16,}=*)", bearer)?);
    all.push(Detector::new(Kind::Password, ASSIGNMENT, assigned)?);
    Ok(all)
}

/// With a right checksum; or, since forms change, as random as tokens are.
fn github(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let (random, check) = (hit.get(1)?.as_str(), hit.get(2)?.as_str());
    (checks::github(random, check) || checks::entropy(random) >= 3.6).then(|| whole(text, hit)).flatten()
}

/// To its end, or as far as there is key: one that was cut off is still one.
fn private_key(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let begin = whole(text, hit)?;
    let rest = &text[begin.end..];
    let body = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+/=\\ \r\n\t:,.-\"'".contains(c))).unwrap_or(rest.len());
    let end = match rest[..body].find("-----END ") {
        Some(end) => rest[end + 9..].find("-----").map_or(body, |close| end + 9 + close + 5),
        None => body,
    };
    Some(begin.start..begin.end + end)
}

/// Wallet Import Format: Base58Check of a version byte and 32 bytes.
fn wallet_key(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let bytes = bs58::decode(&text[range.clone()]).with_check(None).into_vec().ok()?;
    matches!((bytes.first(), bytes.len()), (Some(0x80 | 0xef), 33 | 34)).then_some(range)
}

/// RFC 7519: the first part is a JSON object that names the algorithm or the type.
fn jwt(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let header = BASE64_URL_SAFE_NO_PAD.decode(hit.get(1)?.as_str()).ok()?;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&header).ok()?;
    (header.contains_key("alg") || header.contains_key("typ")).then(|| whole(text, hit)).flatten()
}

fn url_user(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = group(text, hit)?;
    let (_, password) = text[range.clone()].split_once(':')?;
    (!placeholder(password)).then_some(range)
}

fn bearer(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    group(text, hit).filter(|range| !placeholder(&text[range.clone()]) && checks::entropy(&text[range.clone()]) >= 3.0)
}

/// A value that is no word, no name of a variable and no placeholder.
fn assigned(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let mut range = group(text, hit)?;
    let value = text[range.clone()].trim_end_matches(['.', '!', '?', ':']);
    range.end = range.start + value.len();
    let digits = value.bytes().any(|c| c.is_ascii_digit());
    let letters = value.chars().any(char::is_alphabetic);
    let signs = value.chars().any(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/' | ':'));
    let quoted = text[..range.start].ends_with(['"', '\'', '`']);
    // Calls and lookups: `token = request.headers.get(…)`, `password: str`.
    let code = !quoted && (text[range.end..].starts_with(['(', '[', '{', '<']) || (value.contains('.') && !digits));
    let random = (letters && (digits || signs)) || (digits && value.len() >= 8);
    let least = if value.len() < 12 { 2.3 } else { 2.8 };
    let counted =
        before(text, range.start, 60).contains("max_token") || value.bytes().all(|c| c.is_ascii_digit() || c == b'.') && value.len() < 8;
    let good = value.len() <= 200 && random && !code && !counted && !placeholder(value) && checks::entropy(value) >= least;
    (good && value.len() >= 6).then_some(range)
}

/// What people write where a secret would stand.
fn placeholder(value: &str) -> bool {
    let lower = value.to_lowercase();
    let words = [
        "example",
        "changeme",
        "change_me",
        "change-me",
        "placeholder",
        "your_",
        "your-",
        "xxxx",
        "****",
        "....",
        "redacted",
        "dummy",
        "process.env",
        "os.environ",
        "getenv",
        "[password]",
    ];
    lower.starts_with(['$', '%', '<', '{', '[', '&'])
        || words.iter().any(|word| lower.contains(word))
        || lower.contains("${")
        || matches!(lower.as_str(), "password" | "passwd" | "secret" | "token" | "pass" | "pw")
        || lower.starts_with("http://")
        || lower.starts_with("https://")
}
