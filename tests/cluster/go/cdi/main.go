// SPDX-License-Identifier: Apache-2.0

// Command cdi-reference reads CDI specs as containerd and CRI-O do, by the library that they link.
//
//	cdi-reference validate DIR              prints the qualified names of all devices; fails if a spec is invalid
//	cdi-reference inject DIR DEVICE...      prints the OCI configuration on standard input with the edits of the devices
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cdi-reference:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: cdi-reference validate DIR | inject DIR DEVICE...")
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(args[1]), cdi.WithAutoRefresh(false))
	if err != nil {
		return err
	}
	if err := invalid(cache); err != nil {
		return err
	}
	switch args[0] {
	case "validate":
		for _, device := range cache.ListDevices() {
			fmt.Println(device)
		}
		return nil
	case "inject":
		return inject(cache, args[2:])
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
}

// A cache leaves out what it cannot read, and keeps the reasons by file.
func invalid(cache *cdi.Cache) error {
	var all []error
	for path, reasons := range cache.GetErrors() {
		all = append(all, fmt.Errorf("%s: %w", path, errors.Join(reasons...)))
	}
	return errors.Join(all...)
}

func inject(cache *cdi.Cache, devices []string) error {
	var config oci.Spec
	if err := json.NewDecoder(os.Stdin).Decode(&config); err != nil {
		return err
	}
	if _, err := cache.InjectDevices(&config, devices...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(&config)
}
