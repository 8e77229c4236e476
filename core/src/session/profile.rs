//! What the steps of an answer take.

use super::{GenerateOptions, Session};
use crate::Result;
use crate::profile::{Profile, Profiling, Stage, Step};

/// An answer's profile while it is being made.
pub(super) struct Profiler {
    profiling: Profiling,
    /// The clock when the answer began.
    zero: f64,
    profile: Profile,
}

impl Session {
    pub(super) fn begin_profile(&mut self, options: &GenerateOptions) -> Result<()> {
        self.world().measure(options.profile.map(|p| p.clock))?;
        self.profiler = options.profile.map(|profiling| Profiler {
            profiling,
            zero: (profiling.clock)(),
            profile: Profile::default(),
        });
        Ok(())
    }

    /// When a step begins, if that is of interest.
    pub(super) fn begin_step(&self) -> Option<f64> {
        self.profiler.as_ref().map(|p| (p.profiling.clock)())
    }

    /// A step is done, whose `tokens` are the last ones of the cache.
    pub(super) async fn end_step(
        &mut self,
        stage: Stage,
        begin: Option<f64>,
        tokens: usize,
    ) -> Result<()> {
        let (Some(begin), Some(profiler)) = (begin, &self.profiler) else {
            return Ok(());
        };
        let seconds = (profiler.profiling.clock)() - begin;
        let (devices, host) = self.world().measured().await?;
        let position = self.past.len() - tokens;
        let Some(profiler) = &mut self.profiler else {
            return Ok(());
        };
        let spans = profiler.profiling.spans;
        let step = Step {
            stage,
            tokens,
            position,
            begin: begin - profiler.zero,
            seconds,
        };
        (profiler.profile).add(&step, devices, &host, profiler.zero, spans);
        Ok(())
    }

    pub(super) fn end_profile(&mut self) -> Result<Option<Profile>> {
        self.world().measure(None)?;
        let devices = self.world().devices().iter();
        let mut lanes: Vec<String> = devices.map(|device| device.info().to_string()).collect();
        lanes.push("host".into());
        Ok(self.profiler.take().map(|mut profiler| {
            profiler.profile.lanes = lanes;
            profiler.profile.finish();
            profiler.profile
        }))
    }
}
