//! What belongs to a person: ways to reach them, numbers that name them, what they pay with.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use llama_stack_core::Result;
use regex::Captures;

use super::{Detector, Kind, alone, before, checks, group, whole};

/// A date in digits or with a month's name.
const DATE: &str = r"[0-9]{1,2}(?:st|nd|rd|th)?[./ -]{1,2}(?:[0-9]{1,2}|\p{L}{3,10})[.,/ -]{1,2}(?:19|20)?[0-9]{2}\b|(?:19|20)[0-9]{2}[./-][0-9]{1,2}[./-][0-9]{1,2}|\p{L}{3,9} [0-9]{1,2}(?:st|nd|rd|th)?,? (?:19|20)[0-9]{2}";

pub(super) fn detectors() -> Result<Vec<Detector>> {
    let born = format!(
        r"(?i)\b(?:date of birth|birth ?date|d\.?o\.?b\.?|born(?: on)?|birthday|geboren(?: am)?|geburtsdatum|née? le|date de naissance|fecha de nacimiento|nacid[oa] el|data di nascita|nat[oa] il|geboortedatum|data de nascimento)\b[^\n0-9]{{0,20}}?({DATE})"
    );
    Ok(vec![
        Detector::new(
            Kind::Email,
            r"[\p{L}0-9][\p{L}0-9._%+'-]*(?:@|%40| ?[\[({] ?(?i:at) ?[\])}] ?)[\p{L}0-9-]+(?:(?:\.| ?[\[({] ?(?i:dot|punkt) ?[\])}] ?)[\p{L}0-9-]+)+",
            email,
        )?,
        Detector::new(Kind::Phone, r"(?:\+|\b00)[1-9][0-9]{0,2}(?:[ ./-]{0,2}(?:\(0?[0-9]{0,4}\)|[0-9]{1,5})){2,7}", international)?,
        Detector::new(Kind::Phone, r"(?:\(([2-9][0-9]{2})\) ?|\b([2-9][0-9]{2})[-. ])[2-9][0-9]{2}[-. ][0-9]{4}\b", alone_whole)?,
        Detector::new(
            Kind::Phone,
            r"\(?\b0[1-9](?:[0-9]{0,4}\)?[ /-]{1,3}[0-9]{3,8}(?:[ -][0-9]{2,6}){0,3}|(?:[ .][0-9]{2}){4}\b)",
            national,
        )?,
        Detector::new(
            Kind::Phone,
            r"(?i)\b(?:phone|mobile|cell|tel|telefon|téléphone|teléfono|handy|call me (?:at|on)|whatsapp)\b\.?[^0-9+\n]{0,12}([0-9(][0-9() ./-]{6,18}[0-9])",
            counted,
        )?,
        Detector::new(Kind::CreditCard, r"[0-9](?:[ -]?[0-9]){11,18}", card)?,
        Detector::new(Kind::Iban, r"(?i)\b[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}", iban)?,
        Detector::new(Kind::UsSsn, r"\b([0-9]{3})([ -])([0-9]{2})([ -])([0-9]{4})\b", ssn)?,
        Detector::new(Kind::UsSsn, r"(?i)\b(?:ssn|social security(?: number| no\.?)?)\b[^0-9\n]{0,12}([0-9]{9})\b", group)?,
        Detector::new(Kind::UkNino, r"(?i)\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b", nino)?,
        Detector::new(Kind::DeTaxId, r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}", tax_id)?,
        Detector::new(Kind::IpAddress, r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", ipv4)?,
        Detector::new(Kind::IpAddress, r"(?i)(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}", ipv6)?,
        Detector::new(
            Kind::MacAddress,
            r"(?i)\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b|\b[0-9a-f]{2}(?:-[0-9a-f]{2}){5}\b|\b[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}\b",
            mac,
        )?,
        Detector::new(Kind::DateOfBirth, &born, group)?,
        Detector::new(
            Kind::Passport,
            r"(?i)\b(?:passport|reisepass(?:nummer)?|passeport|pasaporte|passaporto)\b(?:\s*(?:number|no\.?|nr\.?|num[eé]ro|n[úu]mero|#|is|n°))*[^\p{L}0-9\n]{0,6}([A-Z]{0,2}[0-9][A-Z0-9]{5,8})\b",
            passport,
        )?,
        Detector::new(Kind::CryptoAddress, r"\b[13LMD][1-9A-HJ-NP-Za-km-z]{25,34}\b", base58)?,
        Detector::new(Kind::CryptoAddress, r"\b(?i:bc|tb|ltc)1[02-9AC-HJ-NP-Zac-hj-np-z]{8,87}\b", bech32)?,
        Detector::new(Kind::CryptoAddress, r"\b0x[0-9a-fA-F]{40}\b", ethereum)?,
    ])
}

fn digits(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect()
}

fn alone_whole(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    whole(text, hit).filter(|range| alone(text, range, "-_."))
}

/// Names of packages with a version (`left-pad@1.3.0`) look the same, but no domain ends in a number.
fn email(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let mut range = whole(text, hit)?;
    let trimmed = text[range.clone()].trim_end_matches('-');
    range.end = range.start + trimmed.len();
    // The password of a URL before its host is told by a rule of its own.
    let url = text[..range.start].rsplit(char::is_whitespace).next().is_some_and(|word| word.contains("://") && word.ends_with(':'));
    if url {
        return None;
    }
    let last = trimmed.rsplit(['.', ' ', ')', ']', '}']).find(|part| !part.is_empty())?;
    (last.chars().count() >= 2 && !last.starts_with(|c: char| c.is_ascii_digit())).then_some(range)
}

/// E.164: at most 15 digits with the country's.
fn international(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let found = &text[range.clone()];
    let count = digits(found.strip_prefix("00").unwrap_or(found)).len();
    let before = text[..range.start].chars().next_back();
    let part = before.is_some_and(|c| c.is_alphanumeric() || ")+-.=/".contains(c));
    ((8..=15).contains(&count) && !part && !text[range.end..].starts_with(|c: char| c.is_alphanumeric())).then_some(range)
}

fn national(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    // A date such as 01-12-2024 has two digits, a sign and four.
    let found = &text[range.clone()];
    let count = digits(found).len();
    ((9..=13).contains(&count) && alone(text, &range, "-_.,/")).then_some(range)
}

fn counted(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    group(text, hit).filter(|range| (7..=15).contains(&digits(&text[range.clone()]).len()))
}

fn card(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let digits = digits(&text[range.clone()]);
    (checks::issued(&digits) && checks::luhn(&digits) && alone(text, &range, "_.")).then_some(range)
}

/// The words behind an account number can look like more of it: the country's length says where it ends.
fn iban(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let (mut compact, mut found) = (String::new(), None);
    for (at, c) in text[range.clone()].char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()) {
        compact.push(c.to_ascii_uppercase());
        if checks::iban(&compact) {
            found = Some(range.start..range.start + at + 1);
        }
    }
    found
}

/// Numbers that are never given out: area 000, 666 and 900 to 999, group 00, serial 0000.
fn ssn(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let part = |index: usize| hit.get(index).map_or("", |part| part.as_str());
    let never = matches!(part(1), "000" | "666") || part(1).starts_with('9') || part(3) == "00" || part(5) == "0000";
    let range = whole(text, hit)?;
    (!never && part(2) == part(4) && alone(text, &range, "-+")).then_some(range)
}

fn nino(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let prefix = text[range.clone()].get(..2)?.to_ascii_uppercase();
    let unused = matches!(prefix.as_str(), "BG" | "GB" | "KN" | "NK" | "NT" | "TN" | "ZZ");
    (!unused).then_some(range)
}

fn tax_id(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    (checks::german_tax_id(&digits(&text[range.clone()])) && alone(text, &range, "-_.+")).then_some(range)
}

fn ipv4(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let address: Ipv4Addr = text[range.clone()].parse().ok()?;
    let version = before(text, range.start, 10);
    let version = version.ends_with("version ") || version.ends_with("release ");
    let end = text[range.end..].strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let said = !address.is_loopback() && !address.is_unspecified() && !address.is_broadcast();
    (said && !version && !end && alone(text, &range, "_-")).then_some(range)
}

fn ipv6(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let found = &text[range.clone()];
    let address: Ipv6Addr = found.parse().ok()?;
    // Paths of programs (`a::b`) have no digits, or few.
    let many = found.bytes().filter(u8::is_ascii_hexdigit).count() >= 5 && found.bytes().any(|c| c.is_ascii_digit());
    (many && !address.is_loopback() && !address.is_unspecified() && alone(text, &range, "_:")).then_some(range)
}

fn mac(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let found = text[range.clone()].to_ascii_lowercase();
    let nobody = ["0", "f"].iter().any(|digit| found.replace([':', '-', '.'], "").replace(digit, "").is_empty());
    (!nobody && alone(text, &range, ":-_.")).then_some(range)
}

fn passport(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    group(text, hit).filter(|range| digits(&text[range.clone()]).len() >= 5)
}

/// Base58Check: the last four bytes are the double SHA-256 of those before them.
fn base58(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let bytes = bs58::decode(&text[range.clone()]).with_check(None).into_vec().ok()?;
    (bytes.len() == 21).then_some(range)
}

/// BIP-173 and BIP-350.
fn bech32(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    bech32::segwit::decode(&text[range.clone()]).is_ok().then_some(range)
}

/// Addresses with letters of both cases carry a checksum in them; those of one case need a word that says what they are.
fn ethereum(text: &str, hit: &Captures<'_>) -> Option<Range<usize>> {
    let range = whole(text, hit)?;
    let hex = &text[range.start + 2..range.end];
    let mixed = hex.bytes().any(|c| c.is_ascii_lowercase()) && hex.bytes().any(|c| c.is_ascii_uppercase());
    let said = ["eth", "wallet", "address", "send", "crypto", "token"].iter().any(|word| before(text, range.start, 60).contains(word));
    (mixed || said).then_some(range)
}
