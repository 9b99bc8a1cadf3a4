//! Entries for instances that drain: whatever a bridge remembers, frames stay on their way to an instance of their function.

use openflow::action::{Action, Learn, LearnSource, LearnTarget, LimitedLearn};
use openflow::oxm::{FieldId, Oxm};

use super::Property;
use super::entries::{Entry, Scan};
use super::surroundings::Step;
use crate::pipeline::{BEGUN, DRAIN};

impl Scan<'_, '_> {
    /// An entry that leaves it open which of two instances it will be.
    pub(super) fn weighs(&mut self, entry: &Entry<'_>, key: u32) {
        let only_registers = matches!(entry.does.actions, [Action::SetField(Oxm::Reg1(..))]);
        self.stays(entry, key, only_registers);
    }

    /// An entry that finds out whether a frame's connection is new.
    pub(super) fn begins(&mut self, entry: &Entry<'_>, key: u32) {
        let only_registers = match entry.does.actions {
            [Action::RegLoad { dst, .. }] => is_register(*dst),
            [Action::Resubmit { in_port: Action::SAME_PORT, table }] => *table == BEGUN,
            [Action::LimitedLearn(LimitedLearn { learn, result, .. })] => {
                learns_registers(learn) && result.as_ref().is_none_or(|result| is_register(result.field))
            }
            _ => false,
        };
        self.stays(entry, key, only_registers && entry.does.goto == Some(DRAIN));
    }

    /// Frames stay on the step that they are on.
    fn stays(&mut self, entry: &Entry<'_>, key: u32, fits: bool) {
        let Some(told) = self.step(entry, key) else { return };
        let function = matches!(self.steps.of(told), Some((Step::Function(_), _)));
        if !fits || !function || entry.does.write.is_some() {
            let what = "does more with frames to a function than to find out which instance has their connection";
            self.tell(entry, Property::Chain, what);
        }
    }
}

fn is_register(field: FieldId) -> bool {
    Some(field) == FieldId::named("reg1")
}

/// Do the entries that are learnt match frames of one step only, and do no more than to fill the register?
fn learns_registers(learn: &Learn) -> bool {
    let metadata = FieldId::named("metadata");
    let whole = |field: FieldId, offset| Some(field) == metadata && offset == 0;
    let same_step = learn.specs.0.iter().any(|spec| match (&spec.source, &spec.target) {
        (LearnSource::Field(from, at), LearnTarget::Match(to, there)) => {
            spec.n_bits == 64 && whole(*from, *at) && whole(*to, *there)
        }
        _ => false,
    });
    let harmless = learn.specs.0.iter().all(|spec| match spec.target {
        LearnTarget::Match(..) => true,
        LearnTarget::Load(field, _) => is_register(field),
        LearnTarget::Output => false,
    });
    learn.table == BEGUN && same_step && harmless
}
