//! Putting a model onto the devices of its ranks, the first time and after a loss.

use std::ops::ControlFlow;
use std::rc::Rc;

use super::{Inputs, Picks, Rank, Ranks, Steps};
use crate::comm::{Placement, World};
use crate::session::statistics::ExpertStatistics;
use crate::session::{DEFAULT_CONTEXT, Phase, Progress, SessionOptions};
use crate::weights::{Held, Loader, ModelFiles};
use crate::{Error, Result};

impl Ranks {
    pub(in crate::session) async fn load(
        files: &ModelFiles,
        world: World,
        options: &SessionOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Ranks> {
        let max = files.config.max_position_embeddings;
        let context = options.context_length.unwrap_or(max.min(DEFAULT_CONTEXT));
        if context == 0 || context > max {
            return Err(Error::Invalid(format!(
                "context of {context} tokens, this model allows 1 to {max}"
            )));
        }
        let mut ranks = Ranks {
            config: files.config.clone(),
            world,
            ranks: Vec::new(),
            inputs: Vec::new(),
            context,
            chunk: options.prefill_chunk.clamp(1, context),
            steps: Steps::default(),
            picks: Picks::default(),
            statistics: None,
        };
        ranks.fill(files, options, progress).await?;
        Ok(ranks)
    }

    /// Puts the model onto the devices.
    async fn fill(
        &mut self,
        files: &ModelFiles,
        options: &SessionOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut report = |done, total| match progress(Progress {
            phase: Phase::Upload,
            done,
            total,
        }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        };
        let world = &self.world;
        let mut ranks = Vec::with_capacity(world.ranks().len());
        let mut loader = Loader::new(files, Rc::clone(world.device(0)), &mut report);
        for (i, placement) in world.ranks().iter().enumerate() {
            let rank = Rank::load(&mut loader, world, i, self.context, options).await;
            ranks.push(rank.map_err(|e| of_rank(e, placement, files, loader.held()))?);
        }
        let stages = world.ranks()[0].pp.len();
        let mut inputs = Vec::with_capacity(world.devices().len());
        for device in world.devices() {
            let vocab = files.config.vocab_size;
            inputs.push(Inputs::new(device.as_ref(), stages, self.chunk, vocab).await?);
        }
        let counts = ranks.iter().filter_map(|rank| rank.route_counts.as_ref());
        let counted = counts.flat_map(|counts| counts.own.iter().copied());
        if options.expert_statistics && self.statistics.is_none() {
            self.statistics = ExpertStatistics::new(&files.config, counted);
        }
        world.flush().await?;
        (self.ranks, self.inputs) = (ranks, inputs);
        let compiled = self.compile(progress).await;
        if compiled.is_err() {
            self.clear();
        }
        compiled
    }

    /// Gives back all that is on the devices; [`Ranks::reload`] brings it again.
    pub(in crate::session) fn clear(&mut self) {
        self.steps = Steps::default();
        self.picks = Picks::default();
        self.ranks.clear();
        self.inputs.clear();
    }

    /// Is there nothing on the devices?
    pub(in crate::session) fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// Puts the model onto the devices again, those that were lost opened anew. Where one was `lost` and none could be opened
    /// it is false, and nothing is done.
    pub(in crate::session) async fn reload(
        &mut self,
        files: &ModelFiles,
        options: &SessionOptions,
        lost: bool,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<bool> {
        self.clear();
        let opened = self.world.reopen().await?;
        if lost && opened == 0 {
            return Ok(false);
        }
        self.fill(files, options, progress).await?;
        Ok(true)
    }

    /// Compiles the kernels that every answer needs, so that the first one does not wait.
    async fn compile(
        &mut self,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        for done in 0..=2 {
            let told = Progress {
                phase: Phase::Compile,
                done,
                total: 2,
            };
            if progress(told).is_break() {
                return Err(Error::Cancelled);
            }
            match done {
                0 => {
                    self.greedy_step().await?;
                }
                1 => {
                    self.prefill_step(self.chunk, true).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Says which rank had no room, if there are several, how much it needs, and what would fit.
fn of_rank(error: Error, placement: &Placement, files: &ModelFiles, held: Held) -> Error {
    let Error::OutOfMemory {
        device,
        bytes,
        what,
    } = error
    else {
        return error;
    };
    if placement.mesh.world_size() == 1 {
        return Error::OutOfMemory {
            device,
            bytes,
            what,
        };
    }
    let share = placement.split.share(placement.tp.me);
    let stages = placement.pp.len() as f64;
    // What it replicates is small beside this.
    let need = files.bytes() as f64 * share / stages;
    let mut what = format!(
        "{what} of rank {}, which has {} of about {need:.0} bytes of weights",
        placement.rank, held.bytes
    );
    let fits = share * held.bytes as f64 / need;
    if fits < share {
        what.push_str(&format!(
            "; about {fits:.2} of the model would fit here (--split), or more ranks"
        ));
    }
    Error::OutOfMemory {
        device,
        bytes,
        what,
    }
}
