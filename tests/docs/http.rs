//! `docs/http.md`: every route, with what it asks for, as `services/server/src/identity/routes.rs` has it.

use std::collections::BTreeMap;

use crate::pages::repository;

const ROUTES: &str = "services/server/src/identity/routes.rs";

/// Route → the actions that it asks for, in order.
type Table = BTreeMap<String, Vec<String>>;

fn of_the_code() -> Table {
    let source = std::fs::read_to_string(repository().join(ROUTES)).unwrap();
    let table = source.split("const ROUTES").nth(1).and_then(|rest| rest.split("\n];").next()).unwrap();
    // What stands between quotes: first the path, then the actions.
    let quoted = |entry: &str| entry.split('"').step_by(2).map(String::from).collect::<Vec<_>>();
    let rows = table.split("(\"/").skip(1).map(quoted).map(|mut row| (format!("/{}", row.remove(0)), row));
    rows.collect()
}

fn of_the_page() -> Table {
    let page = std::fs::read_to_string(repository().join("docs/http.md")).unwrap();
    let every = page.split("## Every route").nth(1).unwrap();
    let coded = |cell: &str| cell.split('`').skip(1).step_by(2).map(String::from).collect::<Vec<_>>();
    let cells = every.lines().filter_map(|line| line.strip_prefix("| `/")?.split_once(" | "));
    cells.map(|(route, rest)| (format!("/{}", route.trim_end_matches('`')), coded(rest.split(" | ").next().unwrap_or_default()))).collect()
}

#[test]
fn the_page_has_every_route_with_its_actions() {
    let (code, page) = (of_the_code(), of_the_page());
    assert!(code.len() > 60, "only {} routes were found in {ROUTES}", code.len());
    for (route, actions) in &code {
        assert_eq!(page.get(route), Some(actions), "{route} in docs/http.md");
    }
    let unknown: Vec<&String> = page.keys().filter(|route| !code.contains_key(*route)).collect();
    assert!(unknown.is_empty(), "docs/http.md has routes that are not in {ROUTES}: {unknown:?}");
}
