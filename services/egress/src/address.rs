//! What kind of address it is.
//!
//! Sources: IANA's registries of special-purpose IPv4 and IPv6 addresses (RFC 6890 and what updates it), and the
//! documentation of the clouds for what answers with credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PRIVATE: &str = "a private address";
const LOOPBACK: &str = "this machine (loopback)";
const LINK_LOCAL: &str = "a link-local address";
const METADATA: &str = "a cloud's metadata service";
const DOCUMENTATION: &str = "an address for documentation";
const MULTICAST: &str = "a multicast address";
const RESERVED: &str = "a reserved address";

/// The first that fits counts.
const V4: [([u8; 4], u8, &str); 20] = [
    ([169, 254, 169, 254], 32, METADATA),
    ([169, 254, 170, 2], 32, METADATA),
    ([100, 100, 100, 200], 32, METADATA),
    ([192, 0, 0, 192], 32, METADATA),
    // Azure's host agent, on an address that looks public.
    ([168, 63, 129, 16], 32, METADATA),
    ([0, 0, 0, 0], 8, "an address of \"this network\""),
    ([10, 0, 0, 0], 8, PRIVATE),
    ([100, 64, 0, 0], 10, "a carrier's private address"),
    ([127, 0, 0, 0], 8, LOOPBACK),
    ([169, 254, 0, 0], 16, LINK_LOCAL),
    ([172, 16, 0, 0], 12, PRIVATE),
    ([192, 0, 0, 0], 24, RESERVED),
    ([192, 0, 2, 0], 24, DOCUMENTATION),
    ([192, 88, 99, 0], 24, RESERVED),
    ([192, 168, 0, 0], 16, PRIVATE),
    ([198, 18, 0, 0], 15, "an address for benchmarks"),
    ([198, 51, 100, 0], 24, DOCUMENTATION),
    ([203, 0, 113, 0], 24, DOCUMENTATION),
    ([224, 0, 0, 0], 4, MULTICAST),
    ([240, 0, 0, 0], 4, RESERVED),
];

/// The first that fits counts. Of what is outside 2000::/3, no address is global unicast.
const V6: [([u16; 8], u8, &str); 15] = [
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, METADATA),
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, METADATA),
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "the unspecified address"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, LOOPBACK),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "an address of a network's own translation to IPv4"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "an address that discards"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, DOCUMENTATION),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, RESERVED),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, DOCUMENTATION),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, PRIVATE),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LINK_LOCAL),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "a site-local address"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, MULTICAST),
    ([0, 0, 0, 0, 0, 0, 0, 0], 3, RESERVED),
    ([0x4000, 0, 0, 0, 0, 0, 0, 0], 2, RESERVED),
];

/// Why it is not public; `None` for an address that everyone may reach.
///
/// Of an address for NAT64 or Teredo only what it carries counts, and that is not judged here: see [`carried`].
pub(crate) fn special(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let fits = |first: [u8; 4], bits: u8| address.to_bits() >> (32 - bits) == u32::from_be_bytes(first) >> (32 - bits);
            V4.iter().find(|(first, bits, _)| fits(*first, *bits)).map(|(.., what)| *what)
        }
        IpAddr::V6(address) => {
            if let [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x2001, 0, ..] = address.segments() {
                return None;
            }
            let first = |segments: [u16; 8]| Ipv6Addr::from(segments).to_bits();
            let fits = |segments, bits: u8| address.to_bits() >> (128 - bits) == first(segments) >> (128 - bits);
            let known = V6.iter().find(|(segments, bits, _)| fits(*segments, *bits)).map(|(.., what)| *what);
            // What the table leaves out of the upper half: 8000::/1 without those that have a name.
            known.or((address.segments()[0] >= 0x8000).then_some(RESERVED))
        }
    }
}

/// The IPv4 addresses that a packet to this one may end at, by a translator or a tunnel on its way.
pub(crate) fn carried(address: Ipv6Addr) -> Vec<IpAddr> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => vec![v4(high, low)],
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => vec![v4(high, low)],
        // Teredo (RFC 4380): its server, and its client with all bits turned.
        [0x2001, 0, server_high, server_low, _, _, high, low] => vec![v4(server_high, server_low), v4(!high, !low)],
        // ISATAP (RFC 5214), below a global prefix.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => vec![v4(high, low)],
        _ => Vec::new(),
    }
}
