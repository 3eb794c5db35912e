//! From records to token sets: the same for any number of threads.

use std::str::FromStr;
use std::sync::OnceLock;

use fp8flow_kernels::Parallel;

use crate::record::{Record, Row};
use crate::report::{Reason, TokenReport};
use crate::split::HeldOut;
use crate::template::Encoder;
use crate::tokens::{MASKED, TokenSet};
use crate::{DataError, Encoded};

/// Rows handed to the threads at a time, and their text in bytes: enough to keep threads busy, little to hold.
const ROWS_AT_A_TIME: usize = 1024;
const BYTES_AT_A_TIME: usize = 8 << 20;

/// Which tokens of a conversation are trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// Answers with their end-of-turn tokens.
    #[default]
    Responses,
    /// Everything.
    All,
}

impl FromStr for Loss {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        match name {
            "responses" => Ok(Self::Responses),
            "all" => Ok(Self::All),
            _ => Err(DataError::UnknownLoss { name: name.to_owned() }),
        }
    }
}

/// How records become token sets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokenizing<'a> {
    /// For conversations and documents; `tokens` pass through without one, or are checked against its vocabulary.
    pub encoder: Option<&'a Encoder<'a>>,
    /// Longer examples lose their end.
    pub cutoff: Option<usize>,
    /// What is trained on in conversations; documents are as a whole, `tokens` where their labels say.
    pub loss: Loss,
    /// What is held out.
    pub held_out: HeldOut,
    /// Chooses what is held out.
    pub seed: u64,
}

/// What came of the records.
#[derive(Clone, Debug)]
pub struct Tokenized {
    /// Examples to train on, in the order of the rows.
    pub train: TokenSet,
    /// Examples held out, in the order of the rows.
    pub held_out: TokenSet,
    /// The account of all rows.
    pub report: TokenReport,
}

/// Tokenizes `records`, in parallel over rows on `pool`.
///
/// Stops with [`DataError::Cancelled`] soon after `cancelled` says so. No trainable example left is an error.
pub fn tokenize(
    records: impl IntoIterator<Item = Result<Row, DataError>>,
    how: &Tokenizing<'_>,
    pool: &dyn Parallel,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Tokenized, DataError> {
    if let Some(cutoff) = how.cutoff.filter(|&cutoff| cutoff < 2) {
        return Err(DataError::Cutoff { cutoff });
    }
    let mut all = TokenSet::new(how.encoder.map_or(0, |encoder| encoder.tokenizer().vocabulary()));
    let mut report = TokenReport::default();
    let mut records = records.into_iter();
    loop {
        let part = take_part(&mut records)?;
        if part.is_empty() {
            break;
        }
        let results: Vec<OnceLock<Result<Labelled, DataError>>> =
            part.iter().map(|_| OnceLock::new()).collect();
        pool.run(part.len(), &|i| {
            if !cancelled()
                && let Ok(record) = &part[i].record
            {
                let _ = results[i].set(label(record, how, part[i].number));
            }
        });
        if cancelled() {
            return Err(DataError::Cancelled);
        }
        for (row, result) in part.iter().zip(results) {
            report.rows += 1;
            let mut example = match (&row.record, result.into_inner()) {
                (Err(reason), _) => {
                    report.drop_row(row.number, *reason);
                    continue;
                }
                (Ok(_), Some(example)) => example?,
                // A task that saw the cancellation while the question above did not.
                (Ok(_), None) => return Err(DataError::Cancelled),
            };
            let cut = how.cutoff.map_or(0, |cutoff| example.ids.len().saturating_sub(cutoff));
            let length = example.ids.len() - cut;
            example.ids.truncate(length);
            example.labels.truncate(length);
            if !example.labels.iter().skip(1).any(|&label| label >= 0) {
                report.drop_row(row.number, Reason::NothingToPredict);
                continue;
            }
            if cut > 0 {
                report.truncated += 1;
                report.truncated_tokens += cut as u64;
            }
            if how.encoder.is_none() {
                all.grow_vocabulary(&example.ids, &example.labels);
            }
            all.push(&example.ids, &example.labels);
        }
    }
    if all.is_empty() {
        return Err(DataError::NothingLeft { report: report.to_string() });
    }
    let chosen = how.held_out.choose(all.len(), how.seed)?;
    let of = |part: bool| all.select_where(|index| chosen[index] == part);
    let (train, held_out) = (of(false), of(true));
    report.kept = train.len() as u64;
    report.held_out = held_out.len() as u64;
    report.tokens = train.tokens() as u64;
    report.trained_tokens = train.targets() as u64;
    report.longest = train.longest() as u64;
    Ok(Tokenized { train, held_out, report })
}

/// The next rows, as many as are handed to the threads at a time.
fn take_part(records: &mut impl Iterator<Item = Result<Row, DataError>>) -> Result<Vec<Row>, DataError> {
    let mut part = Vec::new();
    let mut bytes = 0;
    while part.len() < ROWS_AT_A_TIME && bytes < BYTES_AT_A_TIME {
        let Some(row) = records.next().transpose()? else { break };
        bytes += row.record.as_ref().map_or(0, Record::size);
        part.push(row);
    }
    Ok(part)
}

struct Labelled {
    ids: Vec<u32>,
    labels: Vec<i32>,
}

/// Tokens of a record and the labels to train on.
fn label(record: &Record, how: &Tokenizing<'_>, row: u64) -> Result<Labelled, DataError> {
    let encoder = || how.encoder.ok_or(DataError::NeedsTokenizer);
    let failed = |message| DataError::Encode { row, message };
    let same = |ids: &[u32]| ids.iter().map(|&id| id as i32).collect();
    match record {
        Record::Conversation(conversation) => {
            let Encoded { ids, answer } = encoder()?.conversation(conversation).map_err(failed)?;
            let labels = match how.loss {
                Loss::All => same(&ids),
                Loss::Responses => ids
                    .iter()
                    .zip(answer)
                    .map(|(&id, answer)| if answer { id as i32 } else { MASKED })
                    .collect(),
            };
            Ok(Labelled { ids, labels })
        }
        Record::Text(text) => {
            let ids = encoder()?.document(text).map_err(failed)?;
            Ok(Labelled { labels: same(&ids), ids })
        }
        Record::Tokens { ids, labels } => {
            let labels: Vec<i32> = labels.clone().unwrap_or_else(|| same(ids));
            if let Some(encoder) = how.encoder {
                let vocabulary = encoder.tokenizer().vocabulary();
                let unknown = |token: i64| token >= vocabulary as i64;
                let ids = ids.iter().map(|&id| i64::from(id));
                if let Some(token) = ids.chain(labels.iter().map(|&it| i64::from(it))).find(|&it| unknown(it))
                {
                    return Err(failed(format!(
                        "the token {token} is outside the tokenizer's vocabulary of {vocabulary}"
                    )));
                }
            }
            Ok(Labelled { ids: ids.clone(), labels })
        }
    }
}
