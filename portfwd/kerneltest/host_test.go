// Package kerneltest has tests only: Linux's own TCP on one side of an impaired
// link, our stack on the other, and every byte compared.
package kerneltest

import (
	"testing"

	"sbxnet/portfwd/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m, nil) }
