// Streams the token ids of an answer, through libspecc and cgo.
//
// From the root of the repository, after libspecc was built in build/c (see runtimes/c/README.md):
//
//	CGO_CFLAGS="-I$PWD/runtimes/c/include" CGO_LDFLAGS="-L$PWD/build/c" go build -o tokens examples/go/tokens.go
//	export LD_LIBRARY_PATH=build/c SPECC_ONNXRUNTIME="${SPECC_ONNXRUNTIME:-/path/to/libonnxruntime.so}"
//	./tokens model.specc prompt-lookup 32 1 5 9
//
// With libspecc installed under /usr/local, leave out the three variables that name its folders.
package main

/*
#cgo LDFLAGS: -lspecc
#include <specc.h>
#include <stdlib.h>

int printTokens(void *user, int64_t *tokens, size_t count);
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/cgo"
	"strconv"
	"unsafe"
)

// printTokens prints the tokens of a step. A number other than 0 ends the answer: nobody reads the output any more.
//
//export printTokens
func printTokens(user unsafe.Pointer, tokens *C.int64_t, count C.size_t) C.int {
	output := (*cgo.Handle)(user).Value().(*os.File)
	for _, id := range unsafe.Slice(tokens, int(count)) {
		if _, err := fmt.Fprintf(output, "%d ", int64(id)); err != nil {
			return 1
		}
	}
	return 0
}

// check turns the status of a function of libspecc into its error text.
func check(status C.int) error {
	if status == 0 {
		return nil
	}
	return errors.New(C.GoString(C.specc_error()))
}

func run(arguments []string) error {
	runtime.LockOSThread() // Each thread has an error text of its own.
	if len(arguments) < 4 {
		return errors.New("usage: tokens BUNDLE RECIPE MAX_NEW_TOKENS TOKEN_ID...")
	}
	numbers := make([]C.int64_t, len(arguments)-2) // the count, and then the prompt
	for i, text := range arguments[2:] {
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		numbers[i] = C.int64_t(number)
	}
	count, prompt, length := C.size_t(numbers[0]), numbers[1:], C.size_t(len(numbers)-1)
	bundle, recipe := C.CString(arguments[0]), C.CString(arguments[1])
	defer C.free(unsafe.Pointer(bundle))
	defer C.free(unsafe.Pointer(recipe))
	output := cgo.NewHandle(os.Stdout) // C must not keep pointers of Go; a handle stands for one.
	defer output.Delete()

	var model *C.specc_model
	if err := check(C.specc_open(bundle, nil, &model)); err != nil {
		return err
	}
	defer C.specc_close(model)
	var session *C.specc_session
	if err := check(C.specc_session_open(model, &session)); err != nil {
		return err
	}
	defer C.specc_session_close(session)
	var stats C.specc_stats
	onTokens, user := C.specc_on_tokens(C.printTokens), unsafe.Pointer(&output)
	status := C.specc_generate(session, &prompt[0], length, recipe, count, onTokens, user, &stats)
	if err := check(status); err != nil {
		return err
	}
	_, err := fmt.Printf("\n%s: %d tokens, %d target calls, mean acceptance length %.2f\n", C.GoString(&stats.recipe[0]),
		stats.new_tokens, stats.target_calls, float64(stats.mean_acceptance_length))
	return err
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
}
