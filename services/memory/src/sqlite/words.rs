//! A bank's words: a table of FTS5 of its own, over the texts that are in `chunks`.

use sqlx::{AssertSqlSafe, Sqlite, Transaction};

/// Words of a query that are looked for.
const MAX_WORDS: usize = 64;

/// Named by the bank's number, which is all that is ever put into a statement.
#[derive(Clone, Copy)]
pub(super) struct Words(i64);

impl Words {
    pub(super) fn of(bank: i64) -> Self {
        Self(bank)
    }

    pub(super) fn table(self) -> String {
        format!("words_{}", self.0)
    }

    pub(super) async fn create(self, tx: &mut Transaction<'static, Sqlite>) -> sqlx::Result<()> {
        let table = self.table();
        let words = "content='chunks', content_rowid='n', tokenize='porter unicode61 remove_diacritics 2'";
        for sql in [
            format!("CREATE VIRTUAL TABLE {table} USING fts5(title, text, {words})"),
            // A word that is removed leaves the file, and not a mark that it is gone.
            format!("INSERT INTO {table} ({table}, rank) VALUES ('secure-delete', 1)"),
        ] {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut **tx).await?;
        }
        Ok(())
    }

    pub(super) async fn drop_all(self, tx: &mut Transaction<'static, Sqlite>) -> sqlx::Result<()> {
        sqlx::query(AssertSqlSafe(format!("DROP TABLE {}", self.table()))).execute(&mut **tx).await.map(drop)
    }

    pub(super) async fn add(self, tx: &mut Transaction<'static, Sqlite>, row: i64) -> sqlx::Result<()> {
        let sql = format!("INSERT INTO {} (rowid, title, text) SELECT n, title, text FROM chunks WHERE n = ?", self.table());
        sqlx::query(AssertSqlSafe(sql)).bind(row).execute(&mut **tx).await.map(drop)
    }

    /// While the row is still there: it says which words are removed.
    pub(super) async fn remove(self, tx: &mut Transaction<'static, Sqlite>, row: i64) -> sqlx::Result<()> {
        let table = self.table();
        let sql = format!("INSERT INTO {table} ({table}, rowid, title, text) SELECT 'delete', n, title, text FROM chunks WHERE n = ?");
        sqlx::query(AssertSqlSafe(sql)).bind(row).execute(&mut **tx).await.map(drop)
    }
}

/// What FTS5 is asked: any of the words; and of what is written with marks inside, such as `E-4711`, the parts in a row as
/// well. `None` where there is no word.
pub(super) fn expression(text: &str) -> Option<String> {
    let terms = terms(text);
    if terms.is_empty() { None } else { Some(terms.join(" OR ")) }
}

/// Each of them quoted, so that none is read as an operator.
pub(super) fn terms(text: &str) -> Vec<String> {
    let mut terms: Vec<String> = Vec::new();
    let mut add = |term: &str| {
        let term = format!("\"{term}\"");
        if terms.len() < MAX_WORDS && !terms.contains(&term) {
            terms.push(term);
        }
    };
    for word in text.split(|c: char| c.is_whitespace() || c == '"' || c == '\0') {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let parts: Vec<&str> = word.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
        if parts.len() > 1 {
            add(word);
        }
        parts.into_iter().for_each(&mut add);
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_query_is_an_operator() {
        assert_eq!(expression("cat OR \"dog\" NEAR(x, 3)*").unwrap(), r#""cat" OR "OR" OR "dog" OR "NEAR(x" OR "NEAR" OR "x" OR "3""#);
        assert_eq!(expression("code E-4711?").unwrap(), r#""code" OR "E-4711" OR "E" OR "4711""#);
        assert_eq!(expression(" \u{0} \" -- * ^"), None);
    }
}
