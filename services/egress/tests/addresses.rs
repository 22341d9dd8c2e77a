//! Which URLs tools may open: one table. `+` is allowed, `-` refused, `!` is no URL at all.
//!
//! No name is looked up in a real network: the names of the table have the addresses that stand here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{io, net::IpAddr, sync::Arc};

use llama_stack_core::{Manifest, manifest::Egress};
use llama_stack_egress::{Client, Limits, Lookup};
use url::Url;

struct Names;

#[async_trait::async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let addresses: &[&str] = match name.trim_end_matches('.') {
            "public.example" | "www.public.example" | "xn--bcher-kva.example" => &["93.184.216.34"],
            "six.example" => &["2606:2800:220:1::1"],
            "private.example" | "search.internal" | "www.internal" => &["10.1.2.3"],
            "localhost" => &["127.0.0.1", "::1"],
            "metadata.google.internal" => &["169.254.169.254"],
            "mapped.example" => &["::ffff:127.0.0.1"],
            "nat64.example" => &["64:ff9b::a00:1"],
            "both.example" => &["10.0.0.1", "93.184.216.34"],
            "all-private.example" => &["10.0.0.1", "fd00::1", "127.0.0.1"],
            _ => return Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
        };
        Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }
}

/// The rules of nobody: the public internet.
const DEFAULT: &str = "
+ http://93.184.216.34/
+ https://93.184.216.34/
+ http://93.184.216.34:8080/
+ http://1.1.1.1/
+ https://8.8.8.8/dns-query
+ http://9.255.255.255/
+ http://11.0.0.0/
+ http://100.63.255.255/
+ http://100.128.0.0/
+ http://126.255.255.255/
+ http://128.0.0.1/
+ http://169.253.255.255/
+ http://169.255.0.0/
+ http://172.15.255.255/
+ http://172.32.0.0/
+ http://192.0.1.0/
+ http://192.0.3.0/
+ http://192.167.255.255/
+ http://192.169.0.0/
+ http://198.17.255.255/
+ http://198.20.0.0/
+ http://198.51.99.255/
+ http://203.0.114.0/
+ http://223.255.255.255/
+ http://public.example/
+ https://www.public.example/a?b#c
+ http://public.example./
+ http://PUBLIC.EXAMPLE:8080/
+ http://bücher.example/
+ http://six.example/
+ http://both.example/
+ http://user:pass@public.example/
+ http://public.example:22/
+ http://[2606:4700:4700::1111]/
+ http://[2001:4860:4860::8888]/
+ http://[2a00:1450::1]:8080/
+ http://[2001:200::1]/
+ http://[::ffff:93.184.216.34]/
+ http://[::ffff:5db8:d822]/
+ http://[64:ff9b::93.184.216.34]/
+ http://[2002:5db8:d822::1]/
+ http://[2001:0:5db8:d822:0:0:a247:27dd]/
+ http://[2606:2800::5efe:93.184.216.34]/
+ http://1572395042/
+ http://0x5db8d822/
+ http://0135.0270.0330.042/
+ http://93.12113954/
- http://0.0.0.0/
- http://0.0.0.0:8000/
- http://0/
- http://0.1.2.3/
- http://0.255.255.255/
- http://10.0.0.0/
- http://10.0.0.1/
- http://10.255.255.255/
- http://100.64.0.0/
- http://100.100.100.200/latest/meta-data/
- http://100.127.255.255/
- http://127.0.0.1/
- http://127.0.0.1:8321/v1/models
- https://127.0.0.1/
- http://127.1/
- http://127.0.1/
- http://127.255.255.255/
- http://2130706433/
- http://0x7f000001/
- http://0x7f.0.0.1/
- http://0x7f.1/
- http://0177.0.0.1/
- http://0177.1/
- http://017700000001/
- http://00000000177.0.0.0x1/
- http://127.0.0.1./
- http://127.0.0.1.:80/
- http://%31%32%37.0.0.1/
- http://①②⑦.0.0.1/
- http://127。0。0。1/
- http://user@127.0.0.1/
- http://public.example@127.0.0.1/
- http://public.example:80@127.0.0.1:8080/
- http://169.254.0.1/
- http://169.254.169.254/latest/meta-data/iam/security-credentials/
- http://169.254.170.2/v2/credentials
- http://2852039166/
- http://0xa9fea9fe/
- http://0xa9.0xfe.0xa9.0xfe/
- http://0251.0376.0251.0376/
- http://169.254.43518/
- http://168.63.129.16/
- http://172.16.0.0/
- http://172.16.0.1/
- http://172.31.255.255/
- http://192.0.0.0/
- http://192.0.0.1/
- http://192.0.0.192/opc/v2/
- http://192.0.0.255/
- http://192.0.2.1/
- http://192.88.99.1/
- http://192.168.0.1/
- http://192.168.255.255/
- http://0xc0a80001/
- http://198.18.0.1/
- http://198.19.255.255/
- http://198.51.100.1/
- http://203.0.113.255/
- http://224.0.0.1/
- http://239.255.255.250:1900/
- http://240.0.0.1/
- http://254.254.254.254/
- http://255.255.255.255/
- http://4294967295/
- http://[::]/
- http://[::]:8000/
- http://[::1]/
- http://[::1]:8321/
- http://[0:0:0:0:0:0:0:1]/
- http://[0000:0000:0000:0000:0000:0000:0000:0001]/
- http://[::127.0.0.1]/
- http://[::10.0.0.1]/
- http://[::2]/
- http://[::ffff:127.0.0.1]/
- http://[::ffff:7f00:1]/
- http://[0:0:0:0:0:ffff:127.0.0.1]/
- http://[::ffff:10.0.0.1]/
- http://[::ffff:169.254.169.254]/
- http://[::ffff:a9fe:a9fe]/
- http://[::ffff:0.0.0.0]/
- http://[::ffff:0:127.0.0.1]/
- http://[64:ff9b::127.0.0.1]/
- http://[64:ff9b::10.0.0.1]/
- http://[64:ff9b::a9fe:a9fe]/
- http://[64:ff9b:1::10.0.0.1]/
- http://[64:ff9b:1::8.8.8.8]/
- http://[2002:7f00:1::]/
- http://[2002:a00:1::1]/
- http://[2002:a9fe:a9fe::]/
- http://[2002:c0a8:1::1]/
- http://[2001:0:a00:1:0:0:a247:27dd]/
- http://[2001:0:5db8:d822:0:0:f5ff:fffe]/
- http://[2001:0:5db8:d822:0:0:80ff:fffe]/
- http://[2606:2800::5efe:10.0.0.1]/
- http://[2606:2800::200:5efe:127.0.0.1]/
- http://[2001:db8::5efe:93.184.216.34]/
- http://[100::1]/
- http://[2001:2::1]/
- http://[2001:10::1]/
- http://[2001:20::1]/
- http://[2001:db8::1]/
- http://[3fff::1]/
- http://[4000::1]/
- http://[5f00::1]/
- http://[8000::1]/
- http://[c000::1]/
- http://[fc00::1]/
- http://[fd00::1]/
- http://[fd00:ec2::254]/latest/meta-data/
- http://[fd20:ce::254]/
- http://[fdff:ffff::1]/
- http://[fe00::1]/
- http://[fe80::1]/
- http://[febf::1]/
- http://[fec0::1]/
- http://[feff::1]/
- http://[ff02::1]/
- http://[ff0e::1]/
- http://localhost/
- http://localhost:8321/
- http://LocalHost./
- http://private.example/
- http://search.internal:8443/
- http://metadata.google.internal/computeMetadata/v1/
- http://mapped.example/
- http://nat64.example/
- http://all-private.example/
- http://unknown.example/
- ftp://public.example/
- file:///etc/passwd
- file://public.example/etc/passwd
- gopher://127.0.0.1:6379/_INFO
- dict://127.0.0.1:11211/stat
- ldap://public.example/
- data:text/plain,hello
- javascript:alert(1)
- unix:///var/run/docker.sock
- ws://public.example/
- jar:http://public.example!/
! http://
! http:///
! http://[fe80::1%25eth0]/
! http://[::1
! http://256.256.256.256/
! http://127.0.0.0.1/
! http://1.2.3.4.5/
! http://4294967296/
! http://0x100000000/
! http://public.example:99999/
! http://a b/
! http://127.0.0.1%00.public.example/
! //127.0.0.1/
";

/// `allow`, with ports and without; `deny` before it.
const RULES: &str = "{ allow: [\"10.1.0.0/16\", \"127.0.0.1:8000\", \"search.internal:8443\", \"*.internal\", \"[fd00::1]:443\", localhost:9000,
    all-private.example, 169.254.169.254], deny: [\"*.public.example\", 1.1.1.1, \"8.8.8.0/24:53\", \"10.1.9.0/24\", \"metadata.google.internal\", \"2a00::/16\"] }";

const UNDER_RULES: &str = "
+ http://10.1.2.3/
+ http://10.1.255.255:9999/
+ http://[::ffff:10.1.2.3]/
+ http://[64:ff9b::10.1.2.3]/
+ http://167838211/
+ http://127.0.0.1:8000/
+ http://2130706433:8000/
+ http://[::ffff:127.0.0.1]:8000/
+ http://localhost:8000/
+ http://localhost:9000/
+ http://search.internal:8443/
+ http://search.internal/
+ http://www.internal/
+ http://private.example/
+ http://all-private.example/
+ https://[fd00::1]/
+ http://[fd00::1]:443/
+ http://169.254.169.254/
+ http://public.example/
+ http://8.8.8.8/
- http://10.2.0.0/
- http://10.1.9.9/
- http://[::ffff:10.1.9.9]/
- http://[64:ff9b::10.1.9.9]/
- http://127.0.0.1/
- http://127.0.0.1:8001/
- http://127.0.0.2:8000/
- http://[::1]:8000/
- http://localhost/
- http://localhost:8001/
- http://[fd00::1]/
- http://[fd00::2]:443/
- http://www.public.example/
- http://WWW.public.example./
- http://1.1.1.1/
- http://[::ffff:1.1.1.1]/
- http://[2002:101:101::]/
- http://8.8.8.8:53/
- http://metadata.google.internal/
- http://[2a00:1450::1]/
";

/// Nothing public but what is named.
const CLOSED: &str = "{ public: false, allow: [public.example, \"1.1.1.0/24\"] }";

const UNDER_CLOSED: &str = "
+ http://public.example/
+ http://1.1.1.1/
- http://www.public.example/
- http://93.184.216.34/
- http://8.8.8.8/
- http://[2606:4700:4700::1111]/
- http://10.0.0.1/
";

/// Few ports.
const PORTS: &str = "{ ports: [80, 443], allow: [\"10.1.0.0/16\", \"public.example:8080\"] }";

const UNDER_PORTS: &str = "
+ http://public.example/
+ https://public.example/
+ http://public.example:8080/
+ http://www.public.example:443/
+ http://10.1.2.3:25/
- http://public.example:25/
- http://www.public.example:8080/
- http://93.184.216.34:8080/
- http://[2606:4700:4700::1111]:22/
- http://127.0.0.1/
";

fn client(egress: &str) -> Client {
    let manifest = Manifest::parse(&format!("version: 1\nname: t\negress: {egress}\n"), "m.yaml").unwrap();
    Client::with_lookup(manifest.egress, Limits::default(), Arc::new(Names))
}

async fn table(client: Client, table: &str) -> usize {
    let lines: Vec<&str> = table.lines().filter(|line| !line.is_empty()).collect();
    for line in &lines {
        let (expected, url) = line.split_once(' ').unwrap();
        let happened = match Url::parse(url) {
            Err(_) => "!",
            Ok(url) => match client.check(&url).await {
                Ok(()) => "+",
                Err(error) if error.reason() == Some("egress_refused") || url.host_str() == Some("unknown.example") => "-",
                Err(error) => panic!("{url}: {error:?}"),
            },
        };
        assert_eq!(happened, expected, "{url}");
    }
    lines.len()
}

#[tokio::test]
async fn without_rules_tools_reach_the_public_internet_and_nothing_else() {
    assert!(table(client("{}"), DEFAULT).await >= 150);
}

#[tokio::test]
async fn rules_open_and_close_what_they_name() {
    table(client(RULES), UNDER_RULES).await;
}

#[tokio::test]
async fn the_public_internet_can_be_closed() {
    table(client(CLOSED), UNDER_CLOSED).await;
}

#[tokio::test]
async fn public_addresses_can_be_narrowed_to_a_few_ports() {
    table(client(PORTS), UNDER_PORTS).await;
}

#[tokio::test]
async fn an_error_says_what_was_refused_and_how_to_allow_it() {
    let said = |egress: &'static str, url: &'static str| async move {
        let error = client(egress).check(&url.parse().unwrap()).await.unwrap_err();
        error.message().to_owned()
    };
    assert_eq!(
        said("{}", "http://private.example:8443/secret?key=1").await,
        "private.example may not be reached: 10.1.2.3 is a private address; to open it to tools, the manifest has egress: { allow: [\"private.example:8443\"] }"
    );
    assert_eq!(
        said("{}", "http://[::1]/").await,
        "[::1] may not be reached: it is this machine (loopback); to open it to tools, the manifest has egress: { allow: [\"[::1]:80\"] }"
    );
    assert_eq!(
        said("{ deny: [\"*.example\"] }", "http://public.example/").await,
        "public.example may not be reached: egress.deny in the manifest names it (*.example)"
    );
    assert_eq!(said("{}", "file:///etc/passwd").await, "file: URLs may not be opened: only http and https are spoken");
}

/// The manifest's own example: what it suggests does allow it.
#[tokio::test]
async fn what_an_error_suggests_works() {
    for url in ["http://private.example:8443/", "http://[::1]/", "http://10.0.0.1/", "http://[fd00::1]:8080/", "https://localhost/"] {
        let url: Url = url.parse().unwrap();
        let error = client("{}").check(&url).await.unwrap_err();
        let suggested = error.message().split("egress: ").nth(1).unwrap();
        client(suggested).check(&url).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_the_manifest_names_is_allowed_on_its_port() {
    let url: Url = "http://private.example:8888/".parse().unwrap();
    let client = |egress: Egress| Client::with_lookup(egress.with_server(&url), Limits::default(), Arc::new(Names));
    client(Egress::default()).check(&url).await.unwrap();
    client(Egress::default()).check(&"http://private.example/".parse().unwrap()).await.unwrap_err();
    let denied = Egress { deny: vec!["10.0.0.0/8".parse().unwrap()], ..Egress::default() };
    client(denied).check(&url).await.unwrap_err();
}
