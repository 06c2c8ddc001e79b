//! The parts of a preconditioner that its factors answer for.

/// Implements the methods of [`Preconditioner`](super::Preconditioner) that concern running factors and pass on to `self.factors`.
macro_rules! delegate_to_factors {
    () => {
        fn layers(&self) -> &[Layer] {
            &self.factors.layers
        }

        fn is_ready(&self) -> bool {
            self.factors.ready
        }

        fn check(&self, observations: &[Observation<'_, T>]) -> Result<(), Error> {
            self.factors.check(observations)
        }

        fn input_factor(&self, layer: usize) -> (MatRef<'_, T>, T) {
            (self.factors.inputs[layer].running(), self.factors.correction().unwrap_or(T::one()))
        }

        fn counters(&self) -> [u64; 2] {
            self.factors.counters()
        }

        fn set_counters(&mut self, counters: [u64; 2]) {
            self.factors.set_counters(counters)
        }
    };
}

/// Implements observing and restoring, where the running factors are all there is.
macro_rules! delegate_observing {
    () => {
        fn observe(&mut self, seen: &[Observation<'_, T>], par: Par, stack: &mut MemStack) -> Result<(), Error> {
            self.factors.observe(seen, par, stack)
        }

        fn observe_scratch(&self, observations: &[Observation<'_, T>], par: Par) -> StackReq {
            self.factors.observe_scratch(observations, par)
        }

        fn backup(&mut self) {
            self.factors.backup()
        }

        fn restore(&mut self) {
            self.factors.restore()
        }
    };
}

pub(super) use {delegate_observing, delegate_to_factors};
