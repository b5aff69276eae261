package main

import (
	"errors"
	"fmt"
	"strconv"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/userns"
)

// Exit statuses of sbxnet's own. Any other is the command's, or says that the
// command could not be started (userns.ExecError).
const (
	exitOK = 0
	// exitDoctor: doctor found something essential missing.
	exitDoctor = 1
	// exitFailure: sbxnet itself failed, or refused what it was told.
	exitFailure = userns.StatusFailed
)

// A statusError carries the status to exit with. With a nil Err it ends the
// program silently: the command's own status is not an error of ours.
type statusError struct {
	Status int
	Err    error
}

func (e *statusError) Error() string {
	if e.Err == nil {
		return "exit status " + strconv.Itoa(e.Status)
	}
	return e.Err.Error()
}

func (e *statusError) Unwrap() error { return e.Err }

// usagef makes the error for input that is refused.
func usagef(format string, args ...any) error {
	return &statusError{Status: exitFailure, Err: fmt.Errorf(format, args...)}
}

// exitStatus is what to exit with on err, and what to print before, if
// anything. What is printed is always one line: an error may quote a hostile
// flag value, or come from a library that likes paragraphs.
func exitStatus(err error) (status int, line string) {
	if err == nil {
		return exitOK, ""
	}
	status = exitFailure
	var s *statusError
	if errors.As(err, &s) {
		if s.Err == nil {
			return s.Status, ""
		}
		status = s.Status
	}
	var unstarted *userns.ExecError
	if errors.As(err, &unstarted) {
		status = unstarted.Status
	}
	return status, "sbxnet: " + console.OneLine(err.Error())
}

// shown is a flag value as a message quotes it.
func shown(value string) string { return console.Shown(value) }
