//! Which stages run when: each as soon as those before it are done, side by side as far as the threads go.
//!
//! What comes of a stage depends on its inputs alone, so that the order and the company in which it runs show in no byte.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;

/// Stages compute on stacks as large as the main thread's.
const STACK: usize = 8 << 20;

/// The threads that a stage keeps busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// So many: the others are for stages beside it.
    Some(usize),
    /// All of them: it runs alone.
    All,
}

/// One task: those before it, by their numbers, and the threads it keeps busy.
pub(crate) type Task = (Vec<usize>, Threads);

/// Runs `job` for every one of `tasks` within `budget` threads and gives it the results of those before it. After an error
/// nothing new begins, and what runs is waited for; the errors are returned by the numbers of their tasks.
pub(crate) fn run<T: Clone + Send, E: Send>(
    tasks: &[Task],
    budget: usize,
    job: impl Fn(usize, Vec<T>) -> Result<T, E> + Sync,
) -> Result<Vec<T>, BTreeMap<usize, E>> {
    let budget = budget.max(1);
    let (mut done, mut errors) = (BTreeMap::<usize, T>::new(), BTreeMap::<usize, E>::new());
    let mut waiting: Vec<usize> = (0..tasks.len()).collect();
    let mut running = BTreeMap::<usize, usize>::new();
    let (ended, ends) = mpsc::channel();
    let job = &job;
    thread::scope(|scope| {
        loop {
            // The first that is ready goes first: those that need few threads do not keep one waiting that needs all.
            let ready = |task: &usize| tasks[*task].0.iter().all(|before| done.contains_key(before));
            let next = waiting.iter().position(ready).filter(|_| errors.is_empty());
            let next = next.map(|at| (at, waiting[at], threads(tasks[waiting[at]].1, budget)));
            let busy: usize = running.values().sum();
            if let Some((at, task, threads)) = next.filter(|(_, _, threads)| busy + threads <= budget) {
                waiting.remove(at);
                running.insert(task, threads);
                let given = tasks[task].0.iter().map(|before| done[before].clone()).collect();
                let ended = ended.clone();
                let body = move || {
                    let result = catch_unwind(AssertUnwindSafe(|| job(task, given)));
                    // Nobody listens only where this function itself has panicked.
                    drop(ended.send((task, result)));
                };
                let begun = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, body);
                begun.expect("the system has a thread left");
            } else if running.is_empty() {
                break;
            } else if let Ok((task, result)) = ends.recv() {
                running.remove(&task);
                match result.unwrap_or_else(|panic| resume_unwind(panic)) {
                    Ok(result) => _ = done.insert(task, result),
                    Err(error) => _ = errors.insert(task, error),
                }
            }
        }
    });
    if errors.is_empty() { Ok(done.into_values().collect()) } else { Err(errors) }
}

fn threads(threads: Threads, budget: usize) -> usize {
    match threads {
        Threads::Some(threads) => threads.clamp(1, budget),
        Threads::All => budget,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Tasks that stand in an order in which each is after those before it.
    fn tasks() -> impl Strategy<Value = Vec<Task>> {
        let one = (proptest::collection::vec(any::<prop::sample::Index>(), 0..3), 0..5_usize);
        proptest::collection::vec(one, 0..12).prop_map(|drawn| {
            let tasks = drawn.into_iter().enumerate().map(|(i, (before, need))| {
                let before = before.iter().filter(|_| i > 0).map(|index| index.index(i)).collect();
                (before, if need == 0 { Threads::All } else { Threads::Some(need) })
            });
            tasks.collect()
        })
    }

    proptest! {
        #[test]
        fn each_runs_once_after_its_inputs_and_within_the_budget(tasks in tasks(), budget in 1..6_usize, broken in 0..24_usize) {
            let (busy, most, begun) = (Mutex::new(0), Mutex::new(0), Mutex::new(Vec::new()));
            let ran = run(&tasks, budget, |task, given: Vec<usize>| {
                let threads = threads(tasks[task].1, budget);
                let now = {
                    let mut busy = busy.lock().expect("whole");
                    *busy += threads;
                    *busy
                };
                let mut most = most.lock().expect("whole");
                *most = now.max(*most);
                drop(most);
                begun.lock().expect("whole").push(task);
                thread::yield_now();
                *busy.lock().expect("whole") -= threads;
                assert_eq!(given, tasks[task].0);
                if task == broken { Err("broken") } else { Ok(task) }
            });
            prop_assert!(*most.lock().expect("whole") <= budget);
            let mut begun = begun.into_inner().expect("whole");
            begun.sort_unstable();
            if broken < tasks.len() {
                prop_assert_eq!(ran, Err([(broken, "broken")].into()));
                prop_assert!(begun.windows(2).all(|pair| pair[0] < pair[1]), "each at most once");
            } else {
                prop_assert_eq!(&ran, &Ok(begun));
                prop_assert_eq!(ran, Ok((0..tasks.len()).collect()));
            }
        }
    }

    #[test]
    fn what_does_not_wait_for_each_other_runs_at_the_same_time() {
        let meet = std::sync::Barrier::new(2);
        let tasks = [(vec![], Threads::Some(1)), (vec![], Threads::Some(1)), (vec![0, 1], Threads::All)];
        let ran = run(&tasks, 2, |task, _: Vec<usize>| {
            if task < 2 {
                meet.wait();
            }
            Ok::<_, ()>(task)
        });
        assert_eq!(ran, Ok(vec![0, 1, 2]));
    }

    #[test]
    fn a_panic_is_passed_on_and_not_waited_for_without_end() {
        let tasks = [(vec![], Threads::All), (vec![0], Threads::All)];
        let run = || run(&tasks, 2, |_, _: Vec<()>| -> Result<(), ()> { panic!("as asked") });
        let panic = catch_unwind(run).expect_err("it panics");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"as asked"));
    }
}
