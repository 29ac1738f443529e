//! `alcedo stat`: what is known of one file.

use alcedo_client::FileInfo;
use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::Context;
use crate::failure::Failure;
use crate::output::aligned::aligned;
use crate::output::quantity::{bytes, count, instant};
use crate::output::{API_VERSION, Format, json_document};

/// The flags of `stat`.
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// File: mount/dir/file.parquet, or its URL
    #[arg(value_name = "PATH")]
    path: String,
}

/// Prints the file.
///
/// # Errors
/// There is no such file, or it could not be asked for.
pub(crate) async fn run(args: StatArgs, context: &Context) -> Result<(), Failure> {
    let format = Format::among(context.globals.output, Format::Table, &[Format::Table, Format::Json, Format::Name])?;
    let file = context.client()?.stat(&args.path).await?;
    let printed = match format {
        Format::Json => json_document(&document(&file)),
        Format::Name => format!("{}\n", crate::output::printable(&file.url)).into_bytes(),
        _ => aligned(None, &lines(&file)).into_bytes(),
    };
    context.terminal.print(printed).await
}

fn lines(file: &FileInfo) -> Vec<[String; 2]> {
    let line = |name: &str, value: String| [name.to_owned(), value];
    let mut lines = vec![
        line("url", file.url.clone()),
        line("size", format!("{} ({})", bytes(file.size_bytes), count(file.size_bytes))),
        line("modified", instant(file.modified_us)),
        line("version", file.version.clone()),
    ];
    match &file.parquet {
        None => lines.push(line("parquet", "not opened yet by this worker".to_owned())),
        Some(parquet) => lines.extend([
            line("rows", count(parquet.rows)),
            line("row groups", count(parquet.row_groups.into())),
            line("columns", count(parquet.columns.into())),
            line("page index", if parquet.has_page_index { "yes" } else { "no" }.to_owned()),
            line("file index", format!("{} of the worker's memory", bytes(parquet.index_bytes))),
        ]),
    }
    lines
}

fn document(file: &FileInfo) -> Json {
    let mut document = Map::new();
    document.insert("apiVersion".into(), API_VERSION.into());
    document.insert("kind".into(), "File".into());
    document.extend(fields(file));
    Json::Object(document)
}

/// A file's fields in JSON, alone and in a list.
pub(crate) fn fields(file: &FileInfo) -> Map<String, Json> {
    let parquet = file.parquet.as_ref().map(|parquet| {
        json!({
            "rows": parquet.rows,
            "row_groups": parquet.row_groups,
            "columns": parquet.columns,
            "has_page_index": parquet.has_page_index,
            "index_bytes": parquet.index_bytes,
        })
    });
    let fields = json!({
        "url": file.url,
        "is_prefix": file.is_prefix,
        "size_bytes": file.size_bytes,
        "version": file.version,
        "modified_us": file.modified_us,
        "parquet": parquet,
    });
    if let Json::Object(fields) = fields { fields } else { Map::new() }
}

#[cfg(test)]
pub(crate) mod tests {
    use alcedo_client::ParquetInfo;

    use super::*;

    pub(crate) fn file() -> FileInfo {
        FileInfo {
            url: "s3://lake/users/a.parquet".into(),
            size_bytes: 13_002_339,
            version: "\"e1\"".into(),
            modified_us: 1_769_854_830_000_000,
            is_prefix: false,
            parquet: Some(ParquetInfo {
                rows: 62_500,
                row_groups: 2,
                columns: 10,
                has_page_index: true,
                index_bytes: 4_096,
            }),
        }
    }

    #[test]
    fn people_read_words_and_programs_integers() {
        let expected = "\
url         s3://lake/users/a.parquet
size        12.4 MiB (13,002,339)
modified    2026-01-31T10:20:30Z
version     \"e1\"
rows        62,500
row groups  2
columns     10
page index  yes
file index  4.0 KiB of the worker's memory
";
        assert_eq!(aligned(None, &lines(&file())), expected);
        let expected = concat!(
            r#"{"apiVersion":"alcedo/v1","kind":"File","url":"s3://lake/users/a.parquet","is_prefix":false,"#,
            r#""size_bytes":13002339,"version":"\"e1\"","modified_us":1769854830000000,"#,
            r#""parquet":{"rows":62500,"row_groups":2,"columns":10,"has_page_index":true,"index_bytes":4096}}"#,
        );
        assert_eq!(document(&file()).to_string(), expected);
    }
}
