//! A tree of steps with measures beside each, as `explain` prints it.
//!
//! Part of the output layer. It knows labels and cells, not what they mean.

use super::aligned::aligned;

/// Cells beside each label.
pub(crate) const CELLS: usize = 3;

/// A line of the tree with what hangs below it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Node {
    pub(crate) label: String,
    pub(crate) cells: [String; CELLS],
    pub(crate) children: Vec<Node>,
}

/// The lines of the tree, with the cells aligned.
pub(crate) fn tree(nodes: &[Node]) -> String {
    let mut lines = Vec::new();
    add(nodes, "", &mut lines);
    aligned(None, &lines)
}

fn add(nodes: &[Node], indent: &str, lines: &mut Vec<[String; CELLS + 1]>) {
    for (i, node) in nodes.iter().enumerate() {
        let (branch, below) = if i + 1 == nodes.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let [first, second, third] = node.cells.clone();
        lines.push([format!("{indent}{branch}{}", node.label), first, second, third]);
        add(&node.children, &format!("{indent}{below}"), lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(label: &str, first: &str, second: &str) -> Node {
        Node { label: label.into(), cells: [first.into(), second.into(), String::new()], children: Vec::new() }
    }

    #[test]
    fn branches_and_cells_line_up() {
        let mut file = leaf("a.parquet", "", "");
        file.children = vec![leaf("open", "0.10 ms", "64.0 KiB"), leaf("key pages", "0.02 ms", "")];
        let expected = "\
├─ list          0.01 ms
├─ a.parquet
│  ├─ open       0.10 ms  64.0 KiB
│  └─ key pages  0.02 ms
└─ encode        0.00 ms
";
        assert_eq!(tree(&[leaf("list", "0.01 ms", ""), file, leaf("encode", "0.00 ms", "")]), expected);
    }
}
