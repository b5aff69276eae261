package reactor

// Token names a registration. The zero token names none.
type Token struct {
	index      uint32
	generation uint32
}

// table maps the data of an event to its handler. Slots are used again, in last
// out, first in order, under a new generation.
type table struct {
	slots []slot
	free  []uint32
}

type slot struct {
	handler    Handler
	generation uint32
}

func (t *table) add(h Handler) Token {
	var i uint32
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		i = uint32(len(t.slots))
		t.slots = append(t.slots, slot{generation: 1})
	}
	t.slots[i].handler = h
	return Token{index: i, generation: t.slots[i].generation}
}

// remove reports whether the token named a registration.
func (t *table) remove(k Token) bool {
	if t.get(k.index, k.generation) == nil {
		return false
	}
	s := &t.slots[k.index]
	s.handler = nil
	s.generation++
	if s.generation == 0 { // 0 is the zero token's
		s.generation = 1
	}
	t.free = append(t.free, k.index)
	return true
}

func (t *table) get(index, generation uint32) Handler {
	if index >= uint32(len(t.slots)) || t.slots[index].generation != generation {
		return nil
	}
	return t.slots[index].handler
}
