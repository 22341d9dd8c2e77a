//! The checksums of numbers, as those who give the numbers out define them.

/// ISO/IEC 7812-1, annex B: payment cards.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match (index % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    !digits.is_empty() && sum.is_multiple_of(10)
}

/// Whether a card of this issuer has this many digits. ISO/IEC 7812 prefixes of the networks.
pub(super) fn issued(digits: &[u8]) -> bool {
    let prefix = |length: usize| digits.iter().take(length).fold(0_u32, |number, digit| number * 10 + u32::from(*digit));
    let length = digits.len();
    match (prefix(1), prefix(2), prefix(3), prefix(4)) {
        (4, ..) => matches!(length, 13 | 16 | 19),
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) => length == 16,
        (_, 34 | 37, ..) => length == 15,
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => (14..=19).contains(&length),
        (_, 65, ..) | (_, _, 644..=649, _) | (_, _, _, 6011 | 3528..=3589) | (_, 62, ..) => (16..=19).contains(&length),
        (_, _, _, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763) => (12..=19).contains(&length),
        _ => false,
    }
}

/// ISO 13616: country, two check digits, and the account in the country's length; remainder 1 by 97.
pub(super) fn iban(compact: &str) -> bool {
    let known = compact.get(..2).and_then(|country| IBAN_LENGTHS.iter().find(|(code, _)| *code == country));
    if known.is_none_or(|(_, length)| *length != compact.len()) {
        return false;
    }
    let turned = compact.bytes().skip(4).chain(compact.bytes().take(4));
    let mut remainder = 0_u32;
    for byte in turned {
        match byte {
            b'0'..=b'9' => remainder = (remainder * 10 + u32::from(byte - b'0')) % 97,
            b'A'..=b'Z' => remainder = (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
            _ => return false,
        }
    }
    remainder == 1
}

#[rustfmt::skip]
const IBAN_LENGTHS: [(&str, usize); 76] = [
    ("AD", 24), ("AE", 23), ("AL", 28), ("AT", 20), ("AZ", 28), ("BA", 20), ("BE", 16), ("BG", 22), ("BH", 22), ("BR", 29), ("BY", 28), ("CH", 21),
    ("CR", 22), ("CY", 28), ("CZ", 24), ("DE", 22), ("DK", 18), ("DO", 28), ("EE", 20), ("EG", 29), ("ES", 24), ("FI", 18), ("FO", 18), ("FR", 27),
    ("GB", 22), ("GE", 22), ("GI", 23), ("GL", 18), ("GR", 27), ("GT", 28), ("HR", 21), ("HU", 28), ("IE", 22), ("IL", 23), ("IQ", 23), ("IS", 26),
    ("IT", 27), ("JO", 30), ("KW", 30), ("KZ", 20), ("LB", 28), ("LC", 32), ("LI", 21), ("LT", 20), ("LU", 20), ("LV", 21), ("LY", 25), ("MC", 27),
    ("MD", 24), ("ME", 22), ("MK", 19), ("MR", 27), ("MT", 31), ("MU", 30), ("NL", 18), ("NO", 15), ("PK", 24), ("PL", 28), ("PS", 29), ("PT", 25),
    ("QA", 29), ("RO", 24), ("RS", 22), ("SA", 24), ("SC", 31), ("SD", 18), ("SE", 24), ("SI", 19), ("SK", 24), ("SM", 27), ("ST", 25), ("SV", 28),
    ("TL", 23), ("TN", 24), ("TR", 26), ("UA", 29),
];

/// The German tax id: ISO/IEC 7064, MOD 11,10; of its first ten digits one comes two or three times and others once.
pub(super) fn german_tax_id(digits: &[u8]) -> bool {
    let [first @ .., last] = digits else { return false };
    if first.len() != 10 || first[0] == 0 {
        return false;
    }
    let mut counts = [0_u8; 10];
    for digit in first {
        counts[usize::from(*digit)] += 1;
    }
    let twice = counts.iter().filter(|count| **count == 2).count();
    let thrice = counts.iter().filter(|count| **count == 3).count();
    if counts.iter().any(|count| *count > 3) || twice + thrice != 1 {
        return false;
    }
    let product = first.iter().fold(10_u32, |product, digit| match (u32::from(*digit) + product) % 10 {
        0 => 20 % 11,
        sum => sum * 2 % 11,
    });
    (11 - product) % 10 == u32::from(*last)
}

/// The last six characters of GitHub's and npm's tokens are the CRC-32 of the thirty before them, in base 62.
pub(super) fn github(random: &str, check: &str) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(random.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits == check.as_bytes()
}

/// Bits for each character, by how often each comes.
pub(super) fn entropy(text: &str) -> f64 {
    let mut counts = std::collections::BTreeMap::new();
    let mut all = 0.0_f64;
    for c in text.chars() {
        *counts.entry(c).or_insert(0.0_f64) += 1.0;
        all += 1.0;
    }
    counts.values().map(|count| -(count / all) * (count / all).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect()
    }

    #[test]
    fn right_numbers_pass_and_one_wrong_digit_does_not() {
        for card in ["4111 1111 1111 1111", "5555555555554444", "378282246310005", "6011111111111117", "3530111333300000", "30569309025904"]
        {
            assert!(luhn(&digits(card)) && issued(&digits(card)), "{card}");
        }
        assert!(!luhn(&digits("4111 1111 1111 1112")));
        assert!(!issued(&digits("9111111111111111")));
        assert!(iban("DE89370400440532013000") && iban("GB82WEST12345698765432") && iban("NL91ABNA0417164300"));
        assert!(!iban("DE88370400440532013000") && !iban("DE893704004405320130"));
        assert!(german_tax_id(&digits("86095742719")) && german_tax_id(&digits("47036892816")));
        assert!(!german_tax_id(&digits("86095742718")) && !german_tax_id(&digits("12345678901")));
    }
}
