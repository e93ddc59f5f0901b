// SPDX-License-Identifier: Apache-2.0

// Command cdi-schema-reference validates CDI specs against the JSON schema that the CDI project publishes.
//
//	cdi-schema-reference DIR      prints the names of the specs; fails if one is invalid
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tags.cncf.io/container-device-interface/schema"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cdi-schema-reference:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: cdi-schema-reference DIR")
	}
	paths, err := filepath.Glob(filepath.Join(args[0], "*.json"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("no spec in %s", args[0])
	}
	builtin := schema.BuiltinSchema()
	var all []error
	for _, path := range paths {
		if err := builtin.ValidateFile(path); err != nil {
			all = append(all, fmt.Errorf("%s: %w", path, err))
		} else {
			fmt.Println(filepath.Base(path))
		}
	}
	return errors.Join(all...)
}
