package dataplane

import (
	"fmt"
	"time"
)

// saveAgain is how long after a try a configuration that could not be remembered
// is tried again.
const saveAgain = time.Second

// remember lets the next daemon know the node of at, which is held. What can not be
// saved now is told, shown, and saved as soon as it can be: a rule that was taken
// away must not come back because the run directory was full for a moment.
func (p *Plane) remember(name string, at *place) error {
	waited := at.unsaved != nil
	if at.unsaved = p.run.save(at.node.config()); at.unsaved == nil {
		return nil
	}
	if !waited {
		p.rememberLater(name)
	}
	return fmt.Errorf("it is done, but the next daemon will not know of it until there is room, which is tried each second: %w", at.unsaved)
}

// rememberLater tries it again until it is done, or the node is gone.
func (p *Plane) rememberLater(name string) {
	time.AfterFunc(saveAgain, func() {
		_ = p.hold(name, func(at *place) error {
			if at.unsaved == nil {
				return nil
			}
			if at.unsaved = p.run.save(at.node.config()); at.unsaved != nil {
				p.rememberLater(name)
			}
			return nil
		})
	})
}

// warn adds to what is shown of a node that its configuration is not remembered.
func (at *place) warn(warnings []string) []string {
	if at.unsaved == nil {
		return warnings
	}
	return append(warnings, fmt.Sprintf("the next daemon would not know what was changed last: %v", at.unsaved))
}
