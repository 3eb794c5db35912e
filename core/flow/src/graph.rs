//! The order of stages.

/// Every node after those in `inputs` of it, otherwise in the order of their numbers; and the circles that prevent
/// it, each a list of nodes in which every node waits for the next and the last for the first. Nodes in or behind a
/// circle are not in the order.
pub(crate) fn order(inputs: &[Vec<usize>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut done = vec![false; inputs.len()];
    let mut order = Vec::with_capacity(inputs.len());
    while let Some(next) =
        (0..inputs.len()).find(|&node| !done[node] && inputs[node].iter().all(|&input| done[input]))
    {
        done[next] = true;
        order.push(next);
    }
    (order, cycles(inputs, done))
}

/// One circle for each node that waits for itself, walking from each unfinished node to its first unfinished input.
fn cycles(inputs: &[Vec<usize>], done: Vec<bool>) -> Vec<Vec<usize>> {
    let mut seen = done;
    let mut cycles = Vec::new();
    for start in 0..inputs.len() {
        let mut path = Vec::new();
        let mut node = start;
        while !seen[node] {
            seen[node] = true;
            path.push(node);
            // The order leaves out only nodes that wait for another such node.
            let on_path = inputs[node].iter().find(|input| path.contains(input));
            let Some(&next) = on_path.or_else(|| inputs[node].iter().find(|&&input| !seen[input])) else {
                break;
            };
            if let Some(first) = path.iter().position(|&earlier| earlier == next) {
                let mut cycle = path[first..].to_vec();
                // It is told from the stage that stands first in the file.
                let smallest = (0..cycle.len()).min_by_key(|&at| cycle[at]).unwrap_or(0);
                cycle.rotate_left(smallest);
                cycles.push(cycle);
                break;
            }
            node = next;
        }
    }
    cycles
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_come_first_and_the_file_decides_among_equals() {
        let (order, cycles) = super::order(&[vec![2], vec![], vec![], vec![0, 1]]);
        assert_eq!(order, [1, 2, 0, 3]);
        assert!(cycles.is_empty());
    }

    #[test]
    fn a_circle_is_told_from_its_first_stage() {
        let (order, cycles) = super::order(&[vec![], vec![3, 0], vec![1], vec![2], vec![3]]);
        assert_eq!(order, [0]);
        assert_eq!(cycles, [vec![1, 3, 2]]);
    }

    #[test]
    fn a_stage_that_waits_for_itself_and_two_circles_are_all_found() {
        let (_, cycles) = super::order(&[vec![0], vec![2], vec![1], vec![0, 1]]);
        assert_eq!(cycles, [vec![0], vec![1, 2]]);
    }
}
