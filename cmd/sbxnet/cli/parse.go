package cli

import (
	"fmt"
	"strings"
)

// A Problem is what is wrong with a flag.
type Problem int

const (
	// Undefined: there is no flag of this name.
	Undefined Problem = iota
	// NoValue: the command line ends where its value should be.
	NoValue
	// NoBool: the switch's value is neither true nor false.
	NoBool
	// NoNumber: its value is not one, or too large.
	NoNumber
	// BadSyntax: this is no flag at all, such as "--=". Name is all of it.
	BadSyntax
)

// A FlagError says what is wrong with a flag.
type FlagError struct {
	Problem Problem
	Name    string // without dashes
	Value   string
	err     error // NoBool and NoNumber: what is wrong with the value
}

// Error is what the flag package says.
func (e *FlagError) Error() string {
	switch e.Problem {
	case Undefined:
		return "flag provided but not defined: -" + e.Name
	case NoValue:
		return "flag needs an argument: -" + e.Name
	case NoBool:
		return fmt.Sprintf("invalid boolean value %q for -%s: %v", e.Value, e.Name, e.err)
	case NoNumber:
		return fmt.Sprintf("invalid value %q for flag -%s: %v", e.Value, e.Name, e.err)
	}
	return "bad flag syntax: " + e.Name
}

// parse reads flags up to the arguments.
func (c *Context) parse(args []string) *FlagError {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		name := strings.TrimPrefix(word[1:], "-")
		if name[0] == '-' || name[0] == '=' {
			return &FlagError{Problem: BadSyntax, Name: word}
		}
		name, text, hasText := strings.Cut(name, "=")
		v, ok := c.values[name]
		if !ok {
			return &FlagError{Problem: Undefined, Name: name}
		}
		problem := NoNumber
		if _, isSwitch := v.(*boolValue); isSwitch {
			problem = NoBool
			if !hasText {
				text = "true"
			}
		} else if !hasText {
			if len(args) == 0 {
				return &FlagError{Problem: NoValue, Name: name}
			}
			text, args = args[0], args[1:]
		}
		if err := v.set(text); err != nil {
			return &FlagError{Problem: problem, Name: name, Value: text, err: err}
		}
		c.given[name] = true
	}
	c.args = args
	return nil
}
