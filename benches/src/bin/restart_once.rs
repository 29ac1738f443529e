//! temporary
#![allow(clippy::print_stdout)]
fn main() -> anyhow::Result<()> { for row in alcedo_benches::restart::run()? { println!("{row:?}"); } Ok(()) }
