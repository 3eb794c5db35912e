//! `fp8flow logs`: what happened in a run, and what happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fp8flow_flow::{Class, Entry, Event, Events, Seen, time};
use serde_json::Value;

use crate::args::{Common, LogsArgs};
use crate::choose;
use crate::failure::Failure;
use crate::human::Human;
use crate::screen::Screen;
use crate::signals;

/// Between two looks at the file.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn logs(common: &Common, args: &LogsArgs, screen: &Screen) -> Result<(), Failure> {
    let run = choose::one(&args.place.runs, args.run.as_deref())?;
    let only = args.stage.as_deref();
    if let Some(name) = only {
        let stages = run.stage_names()?;
        if !stages.is_empty() && !stages.iter().any(|stage| stage == name) {
            let help = format!("It has {}.", stages.join(", "));
            return Err(Failure::usage(format!("the run {} has no stage `{name}`", run.record.id), help));
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_quietly(&stop).map_err(|error| Failure::new(Class::Io, error))?;
    let mut log =
        Log { screen, only, events: Events::of(&run.folder), teller: Teller::new(screen, common.quiet) };
    loop {
        // Asked before the file: what was written before the end is in it.
        let running = args.follow && Seen::look(&run.folder)?.is_running();
        log.tell(&stop)?;
        if !running || stop.load(Ordering::Relaxed) || !screen.wait(PAUSE) {
            break;
        }
    }
    if args.follow && !stop.load(Ordering::Relaxed) && !screen.json() {
        let end = Seen::look(&run.folder)?;
        if end.record.exit_code.is_none() && !end.is_running() {
            let id = &run.record.id;
            screen.complain(match &end.crash {
                Some(crash) => format!("run {id}: {crash}"),
                None => format!("the process of run {id} is gone without a word"),
            });
        }
    }
    Ok(())
}

/// The events on their way to the screen.
struct Log<'a> {
    screen: &'a Screen,
    /// The only stage that is asked for.
    only: Option<&'a str>,
    events: Events,
    teller: Teller,
}

impl Log<'_> {
    /// Shows what is written by now.
    fn tell(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        while !stop.load(Ordering::Relaxed)
            && !self.screen.is_closed()
            && let Some(line) = self.events.line()?
        {
            let entry = self.events.entry(&line)?;
            if self.screen.json() {
                // As it is, also where this version does not know what it says; only a torn line is none.
                let value = serde_json::from_str::<Value>(&line);
                if value.is_ok_and(|value| self.only.is_none_or(|name| value["stage"] == name)) {
                    self.screen.print(line);
                }
            } else if let Some(entry) = entry
                && self.only.is_none_or(|name| entry.event.stage() == Some(name))
            {
                self.teller.tell(&entry);
            }
        }
        Ok(())
    }
}

/// Tells events as they are told to whoever sits before a run, at their own pace: of progress a line so often.
struct Teller {
    human: Human,
    /// The first event: its time, and a moment that stands for it.
    first: Option<(String, Instant)>,
}

impl Teller {
    fn new(screen: &Screen, quiet: bool) -> Self {
        Self { human: Human::telling(screen.clone(), quiet), first: None }
    }

    fn tell(&mut self, Entry { time, event }: &Entry) {
        if matches!(event, Event::Metrics { .. } | Event::Note { .. }) {
            return;
        }
        let (first, moment) = self.first.get_or_insert_with(|| (time.clone(), Instant::now()));
        let after = Duration::try_from_secs_f64(time::between(first, time).unwrap_or_default());
        self.human.at(event, *moment + after.unwrap_or_default());
    }
}
