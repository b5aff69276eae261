package cli

import "slices"

// A Context is a command line that was read: what actions are given.
type Context struct {
	App     *App
	Command *Command // the App's own, by its name, where there is none
	args    []string
	values  map[string]value // by each of a flag's names
	given   map[string]bool  // by each name
}

func newContext(a *App, command *Command) *Context {
	c := &Context{App: a, Command: command, values: make(map[string]value), given: make(map[string]bool)}
	for _, f := range command.Flags {
		v := f.value()
		for _, name := range f.Names() {
			c.values[name] = v
		}
	}
	return c
}

// IsSet reports whether a flag was given, by whichever of its names.
func (c *Context) IsSet(name string) bool {
	v, ok := c.values[name]
	for other := range c.given {
		if ok && c.values[other] == v {
			return true
		}
	}
	return false
}

// Value is that of a flag: a bool, string, []string or int, nil if there is no
// such flag.
func (c *Context) Value(name string) any {
	if v, ok := c.values[name]; ok {
		return v.get()
	}
	return nil
}

// Bool is the value of a [BoolFlag], false if there is none of this name.
func (c *Context) Bool(name string) bool {
	b, _ := c.Value(name).(bool)
	return b
}

// String is the value of a [StringFlag], empty if there is none of this name.
func (c *Context) String(name string) string {
	s, _ := c.Value(name).(string)
	return s
}

// StringSlice is the value of a [StringSliceFlag], in the order in which they
// were given, nil if there is none.
func (c *Context) StringSlice(name string) []string {
	s, _ := c.Value(name).([]string)
	return s
}

// Int is the value of an [IntFlag], 0 if there is none of this name.
func (c *Context) Int(name string) int {
	n, _ := c.Value(name).(int)
	return n
}

// Args are the arguments behind the flags.
func (c *Context) Args() Args { return c.args }

// NArg is how many there are.
func (c *Context) NArg() int { return len(c.args) }

// Args are arguments that are no flags.
type Args []string

// First is the first one, empty if there is none.
func (a Args) First() string {
	if len(a) == 0 {
		return ""
	}
	return a[0]
}

// Len is how many there are.
func (a Args) Len() int { return len(a) }

// Present reports whether there is any.
func (a Args) Present() bool { return len(a) > 0 }

// Slice returns a copy that is the caller's.
func (a Args) Slice() []string { return slices.Clone(a) }
