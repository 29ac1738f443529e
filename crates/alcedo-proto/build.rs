//! Compiles `proto/alcedo/v1` without protoc: protox parses, prost and tonic generate.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let files = ["values", "lookup", "files", "cluster"].map(|name| format!("alcedo/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("alcedo.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Answers' payloads are handed on without a copy.
        .bytes(".alcedo.v1.FileRows.compact")
        .bytes(".alcedo.v1.FileRows.arrow_ipc")
        .bytes(".alcedo.v1.FileRows.pages_piece")
        .bytes(".alcedo.v1.DataPage.page")
        .bytes(".alcedo.v1.PagesChunk.dictionary")
        .bytes(".alcedo.v1.ReadResponse.data")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
