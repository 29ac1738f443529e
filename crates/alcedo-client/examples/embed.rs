//! Looks one key up: `cargo run --example embed -- 127.0.0.1:7610 lake/users/ 4711 [KEY_COLUMN]`.

use std::time::Duration;

use alcedo_client::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, path, key, rest @ ..] = args.as_slice() else {
        return Err("usage: embed ENDPOINT PATH KEY [KEY_COLUMN]".into());
    };
    // Build once, clone freely: nothing is opened before the first lookup.
    let client = Client::builder().endpoints([endpoint]).deadline(Duration::from_secs(5)).build()?;
    let key_column = rest.first().map_or("", String::as_str);
    for line in rows(&client, path, key_column, key).await? {
        use std::io::Write as _;
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

/// The rows of a key as text, `column=value` side by side.
async fn rows(client: &Client, path: &str, key_column: &str, key: &str) -> Result<Vec<String>, Error> {
    // A text key is read by the column's type: 4711, 2026-01-31, a UUID.
    let answer = client.lookup(path).key_column(key_column).key(key).await?;
    let row = |(file, row): (&alcedo_client::FileAnswer, &alcedo_client::Row)| {
        let columns = file.schema.columns.iter().zip(&row.values);
        columns.map(|(column, value)| format!("{}={value:?}", column.name)).collect::<Vec<_>>().join(" ")
    };
    Ok(answer.rows().map(row).collect())
}
