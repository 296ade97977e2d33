//! stopgap
use crate::flow::Flow;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};
/// Ring.
pub struct Ring {
    inner: Mutex<(u64, VecDeque<Arc<Flow>>)>,
    more: Condvar,
    max: usize,
}
/// Reader.
pub struct Reader<'a> {
    ring: &'a Ring,
    at: u64,
}
impl Ring {
    /// New.
    pub fn new(max: usize) -> Self {
        Self { inner: Mutex::default(), more: Condvar::new(), max }
    }
    /// Push.
    pub fn push(&self, flow: Flow) {
        let mut g = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        g.0 += 1;
        g.1.push_back(Arc::new(flow));
        if g.1.len() > self.max {
            g.1.pop_front();
        }
        self.more.notify_all();
    }
    /// Reader of all.
    pub fn reader(&self) -> Reader<'_> {
        Reader { ring: self, at: 0 }
    }
}
impl Reader<'_> {
    /// Next.
    pub fn next_before(&mut self, deadline: Instant) -> Option<Arc<Flow>> {
        let mut g = self.ring.inner.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let first = g.0 - g.1.len() as u64;
            let at = self.at.max(first);
            if let Some(f) = g.1.get((at - first) as usize) {
                self.at = at + 1;
                return Some(f.clone());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            g = self.ring.more.wait_timeout(g, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
