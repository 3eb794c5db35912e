//! A block of threads, each a fiber that runs until it has to wait for others.
//!
//! Even blocks run their warps and lanes upwards, odd ones downwards, so that what works in one order alone is seen.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::fiber::{Stacks, switch};
use crate::launch::Launch;
use crate::shared::Shared;
use crate::{memory, say};

/// What a kernel sees of its thread: `EmuThread` of `prelude.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    index: [c_uint; 3],
    block: [c_uint; 3],
    block_dim: [c_uint; 3],
    grid_dim: [c_uint; 3],
    lane: c_uint,
    shared: *mut u8,
}

type Combine = unsafe extern "C" fn(*const *mut c_void, c_uint);

/// What a kernel calls: `EmuHost` of `prelude.h`.
#[repr(C)]
pub(crate) struct Host {
    barrier: unsafe extern "C" fn(c_int, c_int, *const c_char, c_int) -> c_int,
    warp: unsafe extern "C" fn(c_uint, Combine, *mut c_void, *const c_char, c_int),
    active: unsafe extern "C" fn() -> c_uint,
    copy_async: unsafe extern "C" fn(*mut u8, *const u8, c_int),
    copy_commit: unsafe extern "C" fn(),
    copy_wait: unsafe extern "C" fn(c_int),
    is_shared: unsafe extern "C" fn(*const u8, usize) -> c_int,
    fail: unsafe extern "C" fn(*const c_char),
}

pub(crate) static HOST: Host =
    Host { barrier, warp, active, copy_async, copy_commit, copy_wait, is_shared, fail };

/// A line of the source at which a thread waits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Line(*const c_char, c_int);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: `__builtin_FILE()` or a literal of the kernel's, which is loaded.
        let file = unsafe { CStr::from_ptr(self.0) }.to_string_lossy();
        if self.1 == 0 { write!(f, "{file}") } else { write!(f, "{file}:{}", self.1) }
    }
}

#[derive(Clone, Copy)]
enum Waits {
    /// For nobody.
    Not,
    /// For the block.
    Barrier { kind: c_int, value: c_int, line: Line },
    /// For lanes of its warp.
    Warp { mask: u32, combine: Combine, slot: *mut c_void, line: Line },
    /// It has ended.
    Ended,
}

/// A copy on the side: to, from, whether there is something to copy.
type SideCopy = (*mut u8, *const u8, bool);

struct Fiber {
    sp: usize,
    seen: Thread,
    waits: Waits,
    /// What a barrier came to.
    result: c_int,
    asked: Vec<SideCopy>,
    groups: VecDeque<Vec<SideCopy>>,
}

/// One OS thread's work on a launch.
pub(crate) struct Worker<'a> {
    launch: &'a Launch,
    stacks: Option<Stacks>,
    shared: Shared,
    fibers: Vec<Fiber>,
    /// Where the scheduler goes on.
    home: usize,
    current: usize,
    /// The kernel's own pointer to its thread, on this OS thread.
    slot: *mut *const Thread,
    arguments: Vec<*const c_void>,
}

thread_local! {
    /// The worker whose fibers run on this OS thread.
    static WORKER: Cell<*mut Worker<'static>> = const { Cell::new(std::ptr::null_mut()) };
}

fn worker() -> &'static mut Worker<'static> {
    // SAFETY: kernels call the host only while `run` of the worker is on this OS thread, one fiber at a time.
    unsafe { &mut *WORKER.get() }
}

impl<'a> Worker<'a> {
    pub(crate) fn new(launch: &'a Launch) -> Self {
        // SAFETY: a function of the loaded module.
        let slot = unsafe { (launch.module.slot)() };
        let threads = launch.threads();
        let mut stacks = Stacks::take();
        stacks.open(threads);
        let shared = Shared::new(slot as usize, launch.shared);
        let arguments = launch.argument_places();
        Self {
            launch,
            stacks: Some(stacks),
            shared,
            fibers: Vec::new(),
            home: 0,
            current: 0,
            slot,
            arguments,
        }
    }

    /// Runs block number `number`.
    pub(crate) fn run(&mut self, number: u64) {
        let [gx, gy, _] = self.launch.grid.map(u64::from);
        let block = [(number % gx) as u32, (number / gx % gy) as u32, (number / (gx * gy)) as u32];
        let [bx, by, _] = self.launch.block;
        let threads = self.launch.threads();
        self.shared.poison();
        self.fibers.clear();
        for i in 0..threads {
            let linear = i as u32;
            let seen = Thread {
                index: [linear % bx, linear / bx % by, linear / (bx * by)],
                block,
                block_dim: self.launch.block,
                grid_dim: self.launch.grid,
                lane: linear % 32,
                shared: self.shared.dynamic(),
            };
            let sp = self.stacks.as_ref().map_or(0, |stacks| stacks.prepare(i, start, 0));
            let waits = Waits::Not;
            self.fibers.push(Fiber {
                sp,
                seen,
                waits,
                result: 0,
                asked: Vec::new(),
                groups: VecDeque::new(),
            });
        }
        let this: *mut Worker<'static> = std::ptr::from_mut(self).cast();
        WORKER.set(this);
        // SAFETY: this is the only pointer in use until all fibers have ended.
        unsafe { schedule(this, number % 2 == 1) };
        WORKER.set(std::ptr::null_mut());
        if let Some(bytes) = self.shared.overrun() {
            say::stop(&format!("{}: wrote {bytes} bytes past its dynamic shared memory", self.place()));
        }
    }

    /// Combines what the lanes of a warp handed in, if all of the mask that have not ended are there.
    fn combine(&mut self, warp: usize, mask: u32, combine: Combine) -> bool {
        let mut slots = [std::ptr::null_mut(); 32];
        let mut present = 0_u32;
        for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
            match self.fibers.get(32 * warp + lane).map(|fiber| fiber.waits) {
                Some(Waits::Warp { mask: m, combine: c, slot, .. })
                    if m == mask && std::ptr::fn_addr_eq(c, combine) =>
                {
                    slots[lane] = slot;
                    present |= 1 << lane;
                }
                None | Some(Waits::Ended) => {}
                _ => return false,
            }
        }
        // SAFETY: the slots are those that this function was handed in with, on stacks that wait.
        unsafe { combine(slots.as_ptr(), present) };
        for lane in (0..32).filter(|lane| present >> lane & 1 == 1) {
            self.fibers[32 * warp + lane].waits = Waits::Not;
        }
        true
    }

    /// Lets go warps that wait for lanes which have ended since.
    fn part_warps(&mut self) -> bool {
        let waiting: Vec<_> = (0..self.fibers.len()).collect();
        waiting.into_iter().any(|i| match self.fibers[i].waits {
            Waits::Warp { mask, combine, .. } => self.combine(i / 32, mask, combine),
            _ => false,
        })
    }

    /// Lets the block go on if every thread is at the same barrier.
    fn pass_barrier(&mut self) -> bool {
        let Waits::Barrier { kind, line, .. } = self.fibers[0].waits else { return false };
        let mut count = 0;
        for fiber in &self.fibers {
            match fiber.waits {
                Waits::Barrier { kind: k, line: l, value } if k == kind && l == line => {
                    count += c_int::from(value != 0);
                }
                _ => return false,
            }
        }
        let result = match kind {
            1 => c_int::from(count > 0),
            2 => c_int::from(count as usize == self.fibers.len()),
            _ => count,
        };
        for fiber in &mut self.fibers {
            fiber.waits = Waits::Not;
            fiber.result = result;
        }
        true
    }

    /// Who waits for what, when nobody can go on.
    fn stuck(&self) -> String {
        let mut groups: Vec<(String, usize, usize)> = Vec::new();
        for (i, fiber) in self.fibers.iter().enumerate() {
            let what = match fiber.waits {
                Waits::Barrier { line, .. } => format!("wait at the barrier {line}"),
                Waits::Warp { mask, line, .. } => {
                    format!("wait for lanes {mask:#010x} of their warp at {line}")
                }
                Waits::Ended => "have ended".to_owned(),
                Waits::Not => "could go on".to_owned(),
            };
            match groups.iter_mut().find(|group| group.0 == what) {
                Some(group) => group.1 += 1,
                None => groups.push((what, 1, i)),
            }
        }
        let groups =
            groups.iter().map(|(what, n, first)| format!("\n  {n} threads {what}, thread {first} first"));
        format!("{}: threads wait for each other for ever{}", self.block_place(), groups.collect::<String>())
    }

    fn block_place(&self) -> String {
        let [x, y, z] = self.fibers[0].seen.block;
        format!("kernel `{}`, block ({x}, {y}, {z})", self.launch.name)
    }

    fn place(&self) -> String {
        let [x, y, z] = self.fibers[self.current].seen.index;
        format!("{}, thread ({x}, {y}, {z})", self.block_place())
    }

    /// Does the oldest groups of copies of the current thread until `most` are left.
    fn copy(&mut self, most: usize) {
        let fiber = &mut self.fibers[self.current];
        while fiber.groups.len() > most {
            for (to, from, valid) in fiber.groups.pop_front().unwrap_or_default() {
                // SAFETY: shared memory, as was looked at; a fault of the other address is the kernel's, and is named.
                unsafe { if valid { to.copy_from_nonoverlapping(from, 16) } else { to.write_bytes(0, 16) } }
            }
        }
    }
}

/// Lets the fibers of a block run until all have ended, each until it waits.
///
/// Fibers change the worker under way, so nothing here holds a reference to it from one step to the next.
unsafe fn schedule(worker: *mut Worker<'static>, downwards: bool) {
    let threads = (*worker).fibers.len();
    let warps = threads.div_ceil(32);
    let turn = |i: usize, n: usize| if downwards { n - 1 - i } else { i };
    loop {
        let mut ran = false;
        for warp in (0..warps).map(|i| turn(i, warps)) {
            let lanes = (threads - 32 * warp).min(32);
            loop {
                let mut again = false;
                for lane in (0..lanes).map(|i| turn(i, lanes)) {
                    let i = 32 * warp + lane;
                    if matches!((&(*worker).fibers)[i].waits, Waits::Not) {
                        resume(worker, i);
                        again = true;
                    }
                }
                if !again {
                    break;
                }
                ran = true;
            }
        }
        let worker = &mut *worker;
        if worker.fibers.iter().all(|fiber| matches!(fiber.waits, Waits::Ended)) {
            return;
        }
        if !ran && !worker.part_warps() && !worker.pass_barrier() {
            say::stop(&worker.stuck());
        }
    }
}

/// Lets a fiber go on until it waits.
unsafe fn resume(worker: *mut Worker<'static>, i: usize) {
    (*worker).current = i;
    let fiber = (*worker).fibers.as_mut_ptr().add(i);
    // The kernel's pointer to its thread, on this OS thread.
    (*worker).slot.write(&raw const (*fiber).seen);
    switch(&raw mut (*worker).home, (*fiber).sp);
}

/// Lets the current fiber wait.
unsafe fn wait(waits: Waits) {
    let worker = WORKER.get();
    let fiber = (*worker).fibers.as_mut_ptr().add((*worker).current);
    (*fiber).waits = waits;
    switch(&raw mut (*fiber).sp, (*worker).home);
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if let Some(stacks) = self.stacks.take() {
            stacks.give_back();
        }
    }
}

/// The life of a fiber.
unsafe extern "C" fn start(_: usize) -> ! {
    let (entry, arguments) = (worker().launch.entry, worker().arguments.as_ptr());
    entry(arguments);
    wait(Waits::Ended);
    say::stop("a thread came back after its end");
}

/// What runs on this OS thread, for somebody who tells of a fault at `at`.
pub(crate) fn fault(at: usize) -> Option<String> {
    if WORKER.get().is_null() {
        return None;
    }
    let worker = worker();
    let whose = if worker.stacks.as_ref().is_some_and(|stacks| stacks.is_below(at)) {
        ", the stack is full".to_owned()
    } else {
        memory::describe(at)
    };
    Some(format!("{}: fault at {at:#x}{whose}", worker.place()))
}

unsafe extern "C" fn barrier(kind: c_int, value: c_int, file: *const c_char, line: c_int) -> c_int {
    wait(Waits::Barrier { kind, value, line: Line(file, line) });
    let worker = worker();
    worker.fibers[worker.current].result
}

unsafe extern "C" fn warp(
    mask: c_uint,
    combine: Combine,
    slot: *mut c_void,
    file: *const c_char,
    line: c_int,
) {
    let worker = worker();
    let (i, line) = (worker.current, Line(file, line));
    if mask >> (i % 32) & 1 == 0 {
        say::stop(&format!("{}: is not in its own mask {mask:#010x} at {line}", worker.place()));
    }
    worker.fibers[i].waits = Waits::Warp { mask, combine, slot, line };
    if !worker.combine(i / 32, mask, combine) {
        wait(Waits::Warp { mask, combine, slot, line });
    }
}

unsafe extern "C" fn active() -> c_uint {
    let worker = worker();
    let first = worker.current / 32 * 32;
    let lanes = worker.fibers[first..].iter().take(32).enumerate();
    lanes.filter(|(_, fiber)| !matches!(fiber.waits, Waits::Ended)).map(|(lane, _)| 1 << lane).sum()
}

unsafe extern "C" fn copy_async(to: *mut u8, from: *const u8, valid: c_int) {
    let worker = worker();
    if !worker.shared.holds(to as usize, 16) || !(to as usize).is_multiple_of(16) {
        say::stop(&format!(
            "{}: an asynchronous copy to {to:p}, which is not 16 bytes of shared memory",
            worker.place()
        ));
    }
    if !(from as usize).is_multiple_of(16) {
        say::stop(&format!("{}: an asynchronous copy from {from:p}, which is misaligned", worker.place()));
    }
    worker.fibers[worker.current].asked.push((to, from, valid != 0));
}

unsafe extern "C" fn copy_commit() {
    let worker = worker();
    let fiber = &mut worker.fibers[worker.current];
    let group = std::mem::take(&mut fiber.asked);
    fiber.groups.push_back(group);
}

unsafe extern "C" fn copy_wait(most: c_int) {
    worker().copy(usize::try_from(most).unwrap_or(0));
}

unsafe extern "C" fn is_shared(at: *const u8, bytes: usize) -> c_int {
    c_int::from(worker().shared.holds(at as usize, bytes))
}

unsafe extern "C" fn fail(what: *const c_char) {
    say::stop(&format!("{}: {}", worker().place(), CStr::from_ptr(what).to_string_lossy()));
}
