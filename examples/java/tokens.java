// Streams the token ids of an answer, through libspecc and JNA (Debian's package libjna-java).
//
// From the root of the repository, after libspecc was built in build/c (see runtimes/c/README.md):
//
//     javac -cp /usr/share/java/jna.jar -d build/java examples/java/tokens.java
//     export LD_LIBRARY_PATH=build/c SPECC_ONNXRUNTIME="${SPECC_ONNXRUNTIME:-/path/to/libonnxruntime.so}"
//     java -cp /usr/share/java/jna.jar:build/java Tokens model.specc prompt-lookup 32 1 5 9
//
// With libspecc installed under /usr/local, leave out LD_LIBRARY_PATH. A size_t is a long of Java on 64-bit systems.

import com.sun.jna.Callback;
import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.ptr.PointerByReference;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.util.Arrays;

/** The functions of specc.h that this example calls. */
interface Specc extends Library {
    Specc LIBRARY = Native.load("specc", Specc.class);

    /** Is called with the tokens of each step. A number other than 0 ends the answer. */
    interface OnTokens extends Callback {
        int call(Pointer user, Pointer tokens, long count);
    }

    @Structure.FieldOrder({"recipe", "newTokens", "drafts", "drafted", "accepted", "targetCalls", "prefillSeconds", "seconds",
            "meanAcceptanceLength", "error"})
    class Stats extends Structure {
        public byte[] recipe = new byte[64];
        public long newTokens, drafts, drafted, accepted, targetCalls;
        public double prefillSeconds, seconds, meanAcceptanceLength;
        public byte[] error = new byte[512];
    }

    String specc_error();
    int specc_open(String path, Pointer options, PointerByReference model);
    void specc_close(Pointer model);
    int specc_session_open(Pointer model, PointerByReference session);
    void specc_session_close(Pointer session);
    int specc_generate(Pointer session, long[] prompt, long promptTokens, String recipe, long maxNewTokens, OnTokens onTokens,
            Pointer user, Stats stats);
}

class Tokens {
    /** Turns the status of a function of libspecc into its error text. */
    static void check(int status) throws IOException {
        if (status != 0) throw new IOException(Specc.LIBRARY.specc_error());
    }

    /** Decodes an answer in a session of its own. */
    static void run(Pointer model, String recipe, long count, long[] prompt) throws IOException {
        FileOutputStream output = new FileOutputStream(FileDescriptor.out);
        Specc.OnTokens print = (user, tokens, length) -> {
            try {
                for (long id : tokens.getLongArray(0, (int) length)) output.write((id + " ").getBytes());
                return 0;
            } catch (IOException error) {
                return 1; // Nobody reads the output any more.
            }
        };
        PointerByReference session = new PointerByReference();
        check(Specc.LIBRARY.specc_session_open(model, session));
        try {
            Specc.Stats stats = new Specc.Stats();
            check(Specc.LIBRARY.specc_generate(session.getValue(), prompt, prompt.length, recipe, count, print, null, stats));
            output.write(String.format("%n%s: %d tokens, %d target calls, mean acceptance length %.2f%n",
                    Native.toString(stats.recipe), stats.newTokens, stats.targetCalls, stats.meanAcceptanceLength).getBytes());
        } finally {
            Specc.LIBRARY.specc_session_close(session.getValue());
        }
    }

    public static void main(String[] arguments) {
        try {
            if (arguments.length < 4) throw new IOException("usage: tokens BUNDLE RECIPE MAX_NEW_TOKENS TOKEN_ID...");
            long[] numbers = Arrays.stream(arguments).skip(2).mapToLong(Long::parseLong).toArray();
            PointerByReference model = new PointerByReference();
            check(Specc.LIBRARY.specc_open(arguments[0], null, model));
            try {
                run(model.getValue(), arguments[1], numbers[0], Arrays.copyOfRange(numbers, 1, numbers.length));
            } finally {
                Specc.LIBRARY.specc_close(model.getValue());
            }
        } catch (IOException | NumberFormatException error) {
            System.err.println("error: " + error.getMessage());
            System.exit(2);
        }
    }
}
