//! The loop: what has failed once and the saved corpus first, then mutations until the time is over.

use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::memory::{Usage, measured};
use crate::mutate::{INPUT_BYTES_MAX, Random, mutate};
use crate::novelty::{Known, Shape};
use crate::targets::Target;

/// Inputs that new ones are made of.
const POOL_MAX: usize = 4_096;
/// What reading an input may take of memory: something, and so much for each of its bytes.
const MEMORY_BASE: isize = 4 << 20;
const MEMORY_PER_BYTE: isize = 1_024;
/// Longer than any input of this size takes on a busy machine.
const SLOW: Duration = Duration::from_secs(5);
/// Begins the names of inputs that have failed.
const FAILED: &str = "failed-";

/// How long and from where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Time for mutations.
    pub time: Duration,
    /// Of the random numbers.
    pub seed: u64,
    /// The folder of all corpora.
    pub corpus: PathBuf,
    /// Where the input that runs now is kept, for the case that it ends the process.
    pub scratch: PathBuf,
}

/// What a run has done.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Inputs that ran.
    pub inputs: u64,
    /// Different ways in which they were taken.
    pub ways: usize,
    /// Places of the code that ran, if they were counted.
    pub covered: usize,
}

/// Fuzzes a target. What fails is saved in its corpus, and named.
///
/// # Errors
/// The first input that failed, and how; a corpus that can't be read, or is empty.
pub fn fuzz(target: &Target, plan: &Plan) -> Result<Report> {
    let folder = plan.corpus.join(target.name);
    let note = Note::open(plan.scratch.join(format!("{}.running", target.name)), &folder)?;
    let mut run = Run { target, known: Known::default(), inputs: 0, note };
    let mut pool = corpus(&folder)?;
    for input in &pool {
        run.one(input, &folder)?;
    }
    let saved = pool.len();
    let mut random = Random::new(plan.seed);
    let began = Instant::now();
    while began.elapsed() < plan.time {
        // Real inputs as often as all that were made of them, however many those become.
        let among = if random.below(2) == 0 { saved } else { pool.len() };
        let mut input = pool[random.below(among)].clone();
        let other = &pool[random.below(pool.len())];
        mutate(&mut input, other, &mut random);
        if random.below(2) == 0 {
            (target.mend)(&mut input);
        }
        if run.one(&input, &folder)? {
            if pool.len() < POOL_MAX {
                pool.push(input);
            } else {
                let replaced = saved.min(POOL_MAX - 1) + random.below(POOL_MAX - saved.min(POOL_MAX - 1));
                pool[replaced] = input;
            }
        }
    }
    run.note.end()?;
    Ok(Report { inputs: run.inputs, ways: run.known.count(), covered: run.known.covered() })
}

/// Those that have failed once, then the others, each in the order of their names.
fn corpus(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let listed = fs::read_dir(folder).with_context(|| format!("no corpus in {}", folder.display()))?;
    let mut files = listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let has_failed =
        |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FAILED));
    files.sort_by_key(|file| (!has_failed(file), file.clone()));
    if files.is_empty() {
        bail!("the corpus in {} is empty", folder.display());
    }
    files.iter().map(|file| Ok(fs::read(file)?)).collect()
}

fn save(folder: &Path, input: &[u8]) -> Result<PathBuf> {
    let name = blake3::hash(input).to_hex();
    let file = folder.join(format!("{FAILED}{}", &name[..16]));
    fs::write(&file, input).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

struct Run<'a> {
    target: &'a Target,
    known: Known,
    inputs: u64,
    note: Note,
}

/// The input that runs now, in a file: what it holds when a process begins, the process before has died of. Its length, and
/// the bytes; written over and over, since making a file anew takes longer than most inputs do.
struct Note {
    path: PathBuf,
    file: fs::File,
}

impl Note {
    fn open(path: PathBuf, corpus: &Path) -> Result<Self> {
        if let Ok(noted) = fs::read(&path)
            && let Some((length, rest)) = noted.split_first_chunk::<8>()
            && let Some(fatal) =
                usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|length| rest.get(..length))
        {
            save(corpus, fatal)?;
        }
        let file = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, file })
    }

    fn write(&self, input: &[u8]) -> Result<()> {
        let noted = [&(input.len() as u64).to_le_bytes()[..], input].concat();
        self.file.write_all_at(&noted, 0).context("the running input can't be noted")
    }

    fn end(&self) -> Result<()> {
        fs::remove_file(&self.path).context("the note of the running input is gone")
    }
}

impl Run<'_> {
    /// Runs one input. Answers whether it was taken in a new way.
    fn one(&mut self, input: &[u8], folder: &Path) -> Result<bool> {
        self.note.write(input)?;
        self.inputs += 1;
        let began = Instant::now();
        let mut shape = Shape::default();
        let (ran, usage) =
            measured(|| catch_unwind(AssertUnwindSafe(|| (self.target.check)(input, &mut shape))));
        let failure = match ran {
            Err(_) => Some("it panicked".to_owned()),
            Ok(Err(error)) => Some(format!("{error:#}")),
            Ok(Ok(())) => over(usage, input.len())
                .or_else(|| (began.elapsed() > SLOW).then(|| format!("it took {:?}", began.elapsed()))),
        };
        if let Some(failure) = failure {
            let file = save(folder, input)?;
            self.note.end()?;
            bail!(
                "{}, input {}: {failure}; it is saved as {}",
                self.target.name,
                self.inputs,
                file.display()
            );
        }
        Ok(self.known.is_new(shape.id(usage)) && input.len() <= INPUT_BYTES_MAX)
    }
}

fn over(usage: Usage, bytes: usize) -> Option<String> {
    let allowed = MEMORY_BASE
        + MEMORY_PER_BYTE * isize::try_from(bytes).unwrap_or(isize::MAX / MEMORY_PER_BYTE - MEMORY_BASE);
    (usage.peak > allowed).then(|| format!("{bytes} bytes took {} of memory", usage.peak))
}
