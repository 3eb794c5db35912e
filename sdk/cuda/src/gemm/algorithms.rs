//! Which algorithm carries out a product, frozen: asked for once, kept on disk, written into a run's record.
//!
//! An algorithm is good for the version of cuBLASLt and the kind of card that it was chosen on, so these are part of
//! every name. The bits of a result may depend on it: two runs agree if their algorithms do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::lt::{Algorithm, version};
use super::product::Product;
use crate::{Error, Properties, Result, cache};

/// Algorithms by product, on one kind of card.
#[derive(Debug)]
pub(super) struct Algorithms {
    place: String,
    path: Option<PathBuf>,
    /// Those of the file, and those that will be added to it.
    known: BTreeMap<String, Algorithm>,
    added: bool,
    given: BTreeMap<String, Algorithm>,
    used: BTreeMap<String, Algorithm>,
}

impl Algorithms {
    /// Those for a card, kept in `folder`; without one they last as long as this.
    pub(super) fn new(card: &Properties, folder: Option<PathBuf>) -> Result<Self> {
        let place =
            format!("cuBLASLt {} on {} with {} multiprocessors", version()?, card.name, card.multiprocessors);
        Ok(Self::of(place, folder))
    }

    fn of(place: String, folder: Option<PathBuf>) -> Self {
        let name = blake3::hash(place.as_bytes()).to_hex();
        let path = folder.map(|folder| folder.join(format!("{}.algorithms", &name[..32])));
        let mut made = Self {
            place,
            path,
            known: BTreeMap::new(),
            added: false,
            given: BTreeMap::new(),
            used: BTreeMap::new(),
        };
        made.known = made.on_disk();
        made
    }

    /// That for `product`: of those that were handed in, or of those on disk.
    pub(super) fn find(&mut self, product: &Product) -> Option<Algorithm> {
        let name = product.to_string();
        let found = *self.given.get(&name).or_else(|| self.known.get(&name))?;
        self.used.insert(name, found);
        Some(found)
    }

    /// Keeps `algorithm` for `product`; on disk from the next [`save`](Self::save) on.
    pub(super) fn keep(&mut self, product: &Product, algorithm: Algorithm) {
        let name = product.to_string();
        self.given.remove(&name);
        self.used.insert(name.clone(), algorithm);
        self.added |= self.known.insert(name, algorithm) != Some(algorithm);
    }

    /// Writes what was added to disk, beside what others have written there meanwhile.
    pub(super) fn save(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| self.added) else { return };
        let mut all = self.on_disk();
        all.extend(self.known.iter().map(|(name, algorithm)| (name.clone(), *algorithm)));
        match cache::write(path, self.text(&all).as_bytes()) {
            Ok(()) => self.added = false,
            Err(error) => tracing::debug!(%error, path = %path.display(), "algorithms are not kept"),
        }
    }

    /// All that were used, as text: a line that names cuBLASLt and card, then one for each product.
    pub(super) fn describe(&self) -> String {
        self.text(&self.used)
    }

    /// Takes over what [`describe`](Self::describe) told, of the same cuBLASLt and the same kind of card.
    pub(super) fn import(&mut self, text: &str) -> Result<()> {
        self.given = self.parse(text)?;
        Ok(())
    }

    fn text(&self, algorithms: &BTreeMap<String, Algorithm>) -> String {
        let lines = algorithms.iter().map(|(name, algorithm)| format!("{name}: {}", hex(algorithm)));
        std::iter::once(self.place.clone()).chain(lines).collect::<Vec<_>>().join("\n")
    }

    fn parse(&self, text: &str) -> Result<BTreeMap<String, Algorithm>> {
        let mut lines = text.lines();
        let place = lines.next().unwrap_or_default();
        if place != self.place {
            let text = format!(
                "the algorithms were chosen by {place:?}, and this is {:?}: bits may differ",
                self.place
            );
            return Err(Error::Unsupported(text));
        }
        let read = |line: &str| {
            let read = line.rsplit_once(": ").and_then(|(name, hex)| Some((name.to_owned(), unhex(hex)?)));
            read.ok_or_else(|| Error::Unsupported(format!("{line:?} tells of no algorithm")))
        };
        lines.map(read).collect()
    }

    /// What is on disk; nothing where it cannot be read.
    fn on_disk(&self) -> BTreeMap<String, Algorithm> {
        let bytes = self.path.as_deref().and_then(cache::read);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.and_then(|text| self.parse(&text).ok()).unwrap_or_default()
    }
}

impl Drop for Algorithms {
    fn drop(&mut self) {
        self.save();
    }
}

fn hex(algorithm: &Algorithm) -> String {
    algorithm.iter().fold(String::new(), |text, word| text + &format!("{word:016x}"))
}

fn unhex(text: &str) -> Option<Algorithm> {
    let mut algorithm = [0; 8];
    if text.len() != 128 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (i, word) in algorithm.iter_mut().enumerate() {
        *word = u64::from_str_radix(&text[i * 16..][..16], 16).ok()?;
    }
    Some(algorithm)
}

#[cfg(test)]
mod tests {
    use super::super::product::{Format, Operand, Output};
    use super::*;

    const ALGORITHM: Algorithm = [1, u64::MAX, 3, 0, 5, 6, 7, 0x0123_4567_89ab_cdef];

    fn product(m: usize) -> Product {
        let operand = Operand::rows(Format::Bf16, 64);
        Product::new([m, 32, 64], operand, operand, Output::F32)
    }

    fn on(card: &str, folder: Option<PathBuf>) -> Algorithms {
        Algorithms::of(format!("cuBLASLt 120903 on {card} with 132 multiprocessors"), folder)
    }

    #[test]
    fn algorithms_are_kept_on_disk_for_their_card_and_product() {
        let folder = std::env::temp_dir().join(format!("fp8flow-algorithms-{}", std::process::id()));
        let kept = |card| on(card, Some(folder.clone()));
        let (mut first, mut second) = (kept("H100"), kept("H100"));
        assert_eq!(first.find(&product(1)), None);
        first.keep(&product(1), ALGORITHM);
        second.keep(&product(2), [2; 8]);
        drop(first);
        second.save();
        assert_eq!(kept("H100").find(&product(1)), Some(ALGORITHM));
        assert_eq!(kept("H100").find(&product(2)), Some([2; 8]));
        assert_eq!(kept("H100").find(&product(3)), None);
        assert_eq!(kept("H200").find(&product(1)), None);
        assert_eq!(on("H100", None).find(&product(1)), None);

        let path = second.path.clone().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(kept("H100").find(&product(1)), None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_record_gives_the_algorithms_back() {
        let mut told = on("H100", None);
        told.keep(&product(1), ALGORITHM);
        told.keep(&product(2), [2; 8]);
        let text = told.describe();
        assert_eq!(text.lines().count(), 3);

        let mut again = on("H100", None);
        again.import(&text).unwrap();
        assert_eq!(again.find(&product(2)), Some([2; 8]));
        assert_eq!(again.find(&product(1)), Some(ALGORITHM));
        assert_eq!(again.find(&product(3)), None);
        assert_eq!(again.describe(), text);

        let error = on("L40S", None).import(&text).unwrap_err().to_string();
        assert!(error.contains("H100") && error.contains("L40S"), "{error}");
        let error = again.import(&format!("{text}0")).unwrap_err().to_string();
        assert!(error.contains("tells of no algorithm"), "{error}");
    }
}
