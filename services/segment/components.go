package segment

import (
	"slices"
	"strings"
)

const (
	maxNames = 1024 // distinct components that are told apart
	maxSets  = 4096 // distinct sets of them
)

// components knows which components are in which block, in two bytes a block:
// blocks that have the same components share a set. Set 0 is "any": whoever
// sends more names than there is room for makes searches slower, not the
// service larger. It is guarded by the store's mu; sets do not change.
type components struct {
	names map[string]string
	sets  [][]string // sorted names
	ids   map[string]uint16
}

func newComponents() components {
	return components{names: map[string]string{}, sets: [][]string{nil}, ids: map[string]uint16{}}
}

// set gives the number of a sorted list of names.
func (c *components) set(names []string, many bool) uint16 {
	if many {
		return 0
	}
	key := strings.Join(names, "\x00")
	if id, ok := c.ids[key]; ok {
		return id
	}
	if len(c.sets) == maxSets {
		return 0
	}
	list := make([]string, 0, len(names))
	for _, n := range names {
		own, ok := c.names[n]
		if !ok {
			if len(c.names) == maxNames || len(n) > 255 {
				return 0
			}
			own = strings.Clone(n)
			c.names[own] = own
		}
		list = append(list, own)
	}
	id := uint16(len(c.sets))
	c.sets = append(c.sets, list)
	c.ids[key] = id
	return id
}

// wanted says for each set whether blocks with it can have one of the
// components; nil means all of them.
func wanted(sets [][]string, asked []string) []bool {
	if len(asked) == 0 {
		return nil
	}
	can := make([]bool, len(sets))
	for i, set := range sets {
		can[i] = i == 0 || slices.ContainsFunc(asked, func(n string) bool {
			_, found := slices.BinarySearch(set, n)
			return found
		})
	}
	return can
}
