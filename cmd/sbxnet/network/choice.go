//go:build linktest

package network

import (
	"cmp"
	"fmt"
	"os"

	"sbxnet/tapdev/linktest"
)

// choice is of which links tests have built the program:
//
//	go build -tags linktest -ldflags "-X 'sbxnet/cmd/sbxnet/network.choice=link=packet gso=false'"
//
// Under its other names sbxnet has no flags for links, and the engines that call
// it then give it an environment of their own. Without a choice here, that of the
// environment counts. No program but that of tests is built with this file.
var choice string

func init() {
	c, err := linktest.Parse(cmp.Or(choice, os.Getenv(linktest.Env)))
	if err != nil {
		panic(fmt.Sprintf("the link that was chosen for tests: %v", err))
	}
	choose, maySplice = c.Apply, c.Splice()
}
