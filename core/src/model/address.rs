//! The address of an instance: a canonical `ip:port`.
//!
//! Owns the rules that hold for every address: its form as text, and which addresses can never be an endpoint. Refuses
//! to know whose address it is: [`crate::plan`] decides about trust (whose pod, which CIDR).
//!
//! Sources: `ValidateEndpointIP` of k8s.io/kubernetes `pkg/apis/core/validation` (addresses that the API server refuses
//! in an EndpointSlice), KEP-4858 (leading zeros and IPv4-mapped forms), RFC 5952 (canonical IPv6 text), Go's
//! `net.SplitHostPort` (brackets).

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::Reason;

/// An address that may stand in an EndpointSlice: canonical, unicast, not local to one host, port 1 to 65535.
///
/// Ordered by IP, IPv4 first, then by port. Displayed as `10.0.0.1:8888` or `[2001:db8::1]:8888`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceAddr(Bits);

/// IP and port as numbers, because plans compare addresses more often than anything else. The variants and their fields
/// are in the order of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Bits {
    V4(u32, u16),
    /// The halves of the IP; a whole number of 128 bits would double the size.
    V6(u64, u64, u16),
}

/// The IP families that Kubernetes Services and EndpointSlices know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The `addressType` of an EndpointSlice and the `ipFamilies` entry of a Service.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl InstanceAddr {
    /// # Errors
    /// The [`Reason`] why no endpoint can have this address.
    pub fn new(ip: IpAddr, port: u16) -> Result<Self, Reason> {
        if let Some(reason) = refusal(ip) {
            return Err(reason);
        }
        if port == 0 {
            return Err(Reason::PortZero);
        }
        Ok(Self(match ip {
            IpAddr::V4(v4) => Bits::V4(v4.into(), port),
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                Bits::V6((bits >> 64) as u64, bits as u64, port)
            }
        }))
    }

    /// Reads `10.0.0.1:8888`, `[2001:db8::1]:8888`, and `2001:db8::1:8888` as Kitex writes it (registry-etcd v0.2.6
    /// formats with `%s:%d`): without brackets the port follows the last colon.
    ///
    /// # Errors
    /// The [`Reason`] why the text cannot become an endpoint.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        if let Some((ip, port)) = split_v4(text) {
            return Self::new(ip.into(), parse_port(port)?);
        }
        let (host, port) = split(text)?;
        let ip = parse_ip(host)?;
        Self::new(ip, parse_port(port)?)
    }

    /// Whether the text is this address as it is displayed.
    pub fn is_written(self, text: &[u8]) -> bool {
        /// The rest of the text, behind all that was written so far.
        struct Rest<'a>(&'a [u8]);
        impl fmt::Write for Rest<'_> {
            fn write_str(&mut self, part: &str) -> fmt::Result {
                self.0 = self.0.strip_prefix(part.as_bytes()).ok_or(fmt::Error)?;
                Ok(())
            }
        }
        if let Bits::V4(ip, port) = self.0 {
            // Each pass asks it of every instance, and formatting would be a tenth of its time.
            let [a, b, c, d] = ip.to_be_bytes().map(u16::from);
            let parts = [(a, b"." as &[u8]), (b, b"."), (c, b"."), (d, b":"), (port, b"")];
            let mut parts = parts.into_iter();
            return parts.try_fold(text, |text, (n, then)| behind(text, n)?.strip_prefix(then)) == Some(b"");
        }
        let mut rest = Rest(text);
        write!(rest, "{self}").is_ok() && rest.0.is_empty()
    }

    pub fn ip(self) -> IpAddr {
        match self.0 {
            Bits::V4(ip, _) => IpAddr::V4(ip.into()),
            Bits::V6(high, low, _) => IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()),
        }
    }

    /// 1 to 65535.
    pub fn port(self) -> u16 {
        match self.0 {
            Bits::V4(_, port) | Bits::V6(_, _, port) => port,
        }
    }

    pub fn family(self) -> Family {
        match self.0 {
            Bits::V4(..) => Family::V4,
            Bits::V6(..) => Family::V6,
        }
    }

    fn socket(self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port())
    }
}

/// The text behind a number, if it begins with the number's decimal digits.
fn behind(text: &[u8], number: u16) -> Option<&[u8]> {
    let digits = 1 + [10, 100, 1_000, 10_000].iter().filter(|bound| number >= **bound).count();
    let (written, rest) = text.split_at_checked(digits)?;
    let value = written.iter().fold(0, |value, digit| value * 10 + u32::from(digit.wrapping_sub(b'0')));
    (value == u32::from(number) && written.iter().all(u8::is_ascii_digit)).then_some(rest)
}

impl fmt::Display for InstanceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // Each write of a record formats it twice, and `SocketAddr` formats each of its parts by itself.
            Bits::V4(ip, port) => f.pad(TextV4::of(ip, port).as_str()),
            Bits::V6(..) => self.socket().fmt(f),
        }
    }
}

/// An IPv4 address with its port, as text.
struct TextV4 {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl TextV4 {
    const LONGEST: usize = "255.255.255.255:65535".len();

    fn of(ip: u32, port: u16) -> Self {
        let mut text = Self { bytes: [0; Self::LONGEST], length: 0 };
        let [a, b, c, d] = ip.to_be_bytes().map(u16::from);
        for (number, then) in [(a, Some(b'.')), (b, Some(b'.')), (c, Some(b'.')), (d, Some(b':')), (port, None)] {
            let digits = [10_000, 1_000, 100, 10, 1].into_iter().skip_while(|unit| *unit > number.max(1));
            digits.for_each(|unit| text.push(b'0' + (number / unit % 10) as u8));
            then.into_iter().for_each(|byte| text.push(byte));
        }
        text
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn as_str(&self) -> &str {
        // Digits, dots and a colon.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl fmt::Debug for InstanceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InstanceAddr").field(&self.socket()).finish()
    }
}

/// The address that a text names, in any form, even if it may not be an endpoint; `None` if the text names no address.
/// Callers compare a key with its value, where a loopback address is an address too.
pub fn named_address(text: &str) -> Option<(IpAddr, u16)> {
    if let Some((ip, port)) = split_v4(text) {
        return Some((ip.into(), port.parse().ok()?));
    }
    let (host, port) = split(text).ok()?;
    let ip = host.parse::<IpAddr>().ok()?;
    Some((ip.to_canonical(), port.parse::<u16>().ok()?))
}

/// An IPv4 address, which nearly every address is, and the text of its port. The parser takes it in its canonical form
/// only.
fn split_v4(text: &str) -> Option<(Ipv4Addr, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host.parse().ok()?, port))
}

fn split(text: &str) -> Result<(&str, &str), Reason> {
    if text.is_empty() {
        return Err(Reason::AddressMissing);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(Reason::AddressMalformed)?;
        // No program writes or dials a bracketed IPv4 address or name.
        if !host.contains(':') {
            return Err(Reason::AddressMalformed);
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if rest.is_empty() => Err(Reason::PortMissing),
            None => Err(Reason::AddressMalformed),
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or(Reason::PortMissing)?;
    if host.parse::<IpAddr>().is_err() && text.parse::<Ipv6Addr>().is_ok() {
        return Err(Reason::PortMissing);
    }
    Ok((host, port))
}

fn parse_port(text: &str) -> Result<u16, Reason> {
    if text.is_empty() {
        return Err(Reason::PortMissing);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reason::AddressMalformed);
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(Reason::NonCanonicalAddress);
    }
    text.parse().map_err(|_| Reason::AddressMalformed)
}

fn parse_ip(host: &str) -> Result<IpAddr, Reason> {
    if host.is_empty() {
        return Err(Reason::AddressMissing);
    }
    if host.contains('%') {
        return Err(Reason::ZoneIdentifier);
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Err(Reason::Ipv4MappedAddress),
        Ok(ip) if ip.to_string() == host => Ok(ip),
        Ok(_) => Err(Reason::NonCanonicalAddress),
        // Digits and dots that are not an IPv4 address: leading zeros, or parts that are too large or missing. Some
        // parsers read them as octal, so one program would check another address than the next one dials.
        Err(_) if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => Err(Reason::NonCanonicalAddress),
        Err(_) if host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => {
            Err(Reason::HostnameAddress)
        }
        Err(_) => Err(Reason::AddressMalformed),
    }
}

fn refusal(ip: IpAddr) -> Option<Reason> {
    match ip {
        IpAddr::V4(v4) => refusal_v4(v4),
        IpAddr::V6(v6) => refusal_v6(v6),
    }
}

fn refusal_v4(ip: Ipv4Addr) -> Option<Reason> {
    if ip.is_unspecified() || ip.octets()[0] == 0 {
        Some(Reason::UnspecifiedAddress)
    } else if ip.is_loopback() {
        Some(Reason::LoopbackAddress)
    } else if ip.is_link_local() {
        Some(Reason::LinkLocalAddress)
    } else if ip.is_multicast() {
        Some(Reason::MulticastAddress)
    } else if ip.is_broadcast() {
        Some(Reason::BroadcastAddress)
    } else {
        None
    }
}

fn refusal_v6(ip: Ipv6Addr) -> Option<Reason> {
    if ip.is_unspecified() {
        Some(Reason::UnspecifiedAddress)
    } else if ip.is_loopback() {
        Some(Reason::LoopbackAddress)
    } else if ip.to_ipv4_mapped().is_some() {
        Some(Reason::Ipv4MappedAddress)
    } else if ip.is_unicast_link_local() {
        Some(Reason::LinkLocalAddress)
    } else if ip.is_multicast() {
        Some(Reason::MulticastAddress)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_that_frameworks_write() {
        for (text, canonical) in [
            ("10.0.0.1:8888", "10.0.0.1:8888"),
            ("[2001:db8::1]:8888", "[2001:db8::1]:8888"),
            ("2001:db8::1:8888", "[2001:db8::1]:8888"),
            ("255.255.255.254:65535", "255.255.255.254:65535"),
            ("[fd77::1]:1", "[fd77::1]:1"),
        ] {
            assert_eq!(InstanceAddr::parse(text).map(|a| a.to_string()), Ok(canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn refuses_with_the_reason_that_an_operator_can_act_on() {
        for (text, reason) in [
            ("", Reason::AddressMissing),
            (":8888", Reason::AddressMissing),
            ("10.0.0.1", Reason::PortMissing),
            ("10.0.0.1:", Reason::PortMissing),
            ("2001:db8::", Reason::PortMissing),
            ("[2001:db8::1]", Reason::PortMissing),
            ("10.0.0.1:0", Reason::PortZero),
            ("10.0.0.1:65536", Reason::AddressMalformed),
            ("10.0.0.1:http", Reason::AddressMalformed),
            ("10.0.0.1:+80", Reason::AddressMalformed),
            ("10.0.0.1:080", Reason::NonCanonicalAddress),
            ("[10.0.0.1]:80", Reason::AddressMalformed),
            ("[2001:db8::1]80", Reason::AddressMalformed),
            ("[2001:db8::1", Reason::AddressMalformed),
            ("[[2001:db8::1]]:80", Reason::AddressMalformed),
            ("0.0.0.0:80", Reason::UnspecifiedAddress),
            ("0.1.2.3:80", Reason::UnspecifiedAddress),
            ("[::]:80", Reason::UnspecifiedAddress),
            ("127.0.0.1:80", Reason::LoopbackAddress),
            ("127.255.0.1:80", Reason::LoopbackAddress),
            ("::1:80", Reason::LoopbackAddress),
            ("[::1]:80", Reason::LoopbackAddress),
            ("169.254.169.254:80", Reason::LinkLocalAddress),
            ("[fe80::1]:80", Reason::LinkLocalAddress),
            ("[fe80::1%eth0]:80", Reason::ZoneIdentifier),
            ("224.0.0.1:80", Reason::MulticastAddress),
            ("239.1.1.1:80", Reason::MulticastAddress),
            ("[ff02::1]:80", Reason::MulticastAddress),
            ("255.255.255.255:80", Reason::BroadcastAddress),
            ("[::ffff:10.0.0.1]:80", Reason::Ipv4MappedAddress),
            ("[::ffff:a00:1]:80", Reason::Ipv4MappedAddress),
            ("010.0.0.1:80", Reason::NonCanonicalAddress),
            ("10.1:80", Reason::NonCanonicalAddress),
            ("10.0.0.256:80", Reason::NonCanonicalAddress),
            ("[2001:DB8::1]:80", Reason::NonCanonicalAddress),
            ("[2001:db8:0:0::1]:80", Reason::NonCanonicalAddress),
            ("svc.example:80", Reason::HostnameAddress),
            ("localhost:80", Reason::HostnameAddress),
            ("x::y:80", Reason::AddressMalformed),
            (" 10.0.0.1:80", Reason::AddressMalformed),
            ("{}:80", Reason::AddressMalformed),
        ] {
            assert_eq!(InstanceAddr::parse(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn a_name_in_a_key_is_compared_whatever_its_form() {
        assert_eq!(named_address("127.0.0.1:80"), Some(([127, 0, 0, 1].into(), 80)));
        assert_eq!(named_address("::1:80"), named_address("[::1]:80"));
        assert_eq!(named_address("[::ffff:10.0.0.1]:80"), named_address("10.0.0.1:80"));
        assert_eq!(named_address("some-pod-name"), None);
        assert_eq!(named_address("svc.example:80"), None);
    }

    #[test]
    fn only_the_displayed_form_is_the_written_one() {
        let addr = InstanceAddr::parse("10.200.0.1:8080").unwrap();
        for (text, written) in [
            ("10.200.0.1:8080", true),
            ("10.200.0.1:808", false),
            ("10.200.0.1:80800", false),
            ("10.200.0.01:8080", false),
            ("10.200.0.1:08080", false),
            ("10.200.0.2:8080", false),
            ("10.20:.0.1:8080", false),
            ("10.1:0.0.1:8080", false),
            ("10.200.0.1", false),
            ("", false),
        ] {
            assert_eq!(addr.is_written(text.as_bytes()), written, "{text}");
        }
    }

    #[test]
    fn orders_by_family_then_address_then_port() {
        let mut all: Vec<InstanceAddr> = ["[fd77::1]:1", "10.0.0.2:1", "10.0.0.1:2", "10.0.0.1:1", "9.0.0.1:9"]
            .map(|t| InstanceAddr::parse(t).unwrap())
            .into();
        all.sort();
        let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["9.0.0.1:9", "10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[fd77::1]:1"]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_round_trips_what_it_accepts(text in ".{0,40}") {
            if let Ok(addr) = InstanceAddr::parse(&text) {
                proptest::prop_assert_eq!(InstanceAddr::parse(&addr.to_string()), Ok(addr));
            }
        }

        #[test]
        fn every_accepted_socket_address_round_trips(ip: IpAddr, port: u16) {
            if let Ok(addr) = InstanceAddr::new(ip, port) {
                let text = addr.to_string();
                proptest::prop_assert_eq!(&text, &SocketAddr::new(ip, port).to_string());
                proptest::prop_assert_eq!(InstanceAddr::parse(&text), Ok(addr));
                proptest::prop_assert_eq!((addr.ip(), addr.port(), addr.family()), (ip, port, Family::of(ip)));
                proptest::prop_assert!(addr.is_written(text.as_bytes()));
            }
        }

        #[test]
        fn addresses_are_ordered_as_sockets(a: SocketAddr, b: SocketAddr) {
            let new = |socket: SocketAddr| InstanceAddr::new(socket.ip(), socket.port());
            if let (Ok(one), Ok(other)) = (new(a), new(b)) {
                proptest::prop_assert_eq!(one.cmp(&other), (a.ip(), a.port()).cmp(&(b.ip(), b.port())));
            }
        }
    }
}
