//! Members that are struck off because something was due: a heartbeat, the surrender of
//! partitions, or a step of the classic protocol.

use std::rc::Rc;

use super::draft::Draft;
use super::{ConsumerGroup, Effects, Scene, Soft};

/// Lets what is due by `scene.at.now` happen to `group`.
pub fn expire(
    name: &Rc<str>,
    group: &ConsumerGroup,
    soft: &mut Soft,
    scene: Scene<'_>,
    out: &mut Effects,
) {
    let mut draft = Draft::new(name, Some(group), scene);
    let mut any = false;
    while let Some(id) = soft.due(scene.at.now) {
        if draft.group().member(&id).is_some() {
            draft.remove_member(&id, soft);
            any = true;
        }
    }
    if any {
        draft.settle(soft, out);
    }
}
