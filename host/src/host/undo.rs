//! What a start has done so far, and how each of it is undone.

use std::pin::Pin;
use std::time::Duration;

use godwit_core::time::within;

use super::stage::{Left, Stage};

/// How long undoing one stage may take: a whole shutdown, with all its bounds, is one of them.
const UNDO_MAX: Duration = Duration::from_secs(60);

type Step = Pin<Box<dyn Future<Output = Vec<String>> + Send>>;

/// Steps that take back what stages have done, last one first. Dropping them undoes nothing.
#[derive(Default)]
pub(super) struct Undo {
    steps: Vec<(Stage, Step)>,
    left: Vec<Left>,
}

impl Undo {
    /// Remembers how to undo a stage. The step answers what it could not undo; its captures live until then.
    pub(super) fn push(&mut self, stage: Stage, step: impl Future<Output = Vec<String>> + Send + 'static) {
        self.steps.push((stage, Box::pin(step)));
    }

    /// Remembers what can't be undone, if it comes to that.
    pub(super) fn stays(&mut self, stage: Stage, what: String) {
        self.left.push(Left { stage, what });
    }

    /// Undoes everything. Answers the stages that are undone wholly, and what is left.
    pub(super) async fn run(self) -> (Vec<Stage>, Vec<Left>) {
        let Self { steps, mut left } = self;
        let mut undone = Vec::new();
        for (stage, step) in steps.into_iter().rev() {
            let rest = match within(UNDO_MAX, step).await {
                Some(rest) => rest,
                None => vec!["undoing it took too long".to_owned()],
            };
            if rest.is_empty() {
                undone.push(stage);
            }
            left.extend(rest.into_iter().map(|what| Left { stage, what }));
        }
        (undone, left)
    }
}
