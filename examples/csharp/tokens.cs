// Streams the token ids of an answer, through libspecc and P/Invoke. Tried with Mono (Debian's package mono-mcs).
//
// From the root of the repository, after libspecc was built in build/c (see runtimes/c/README.md):
//
//     mcs -out:build/tokens.exe examples/csharp/tokens.cs
//     export LD_LIBRARY_PATH=build/c SPECC_ONNXRUNTIME="${SPECC_ONNXRUNTIME:-/path/to/libonnxruntime.so}"
//     mono build/tokens.exe model.specc prompt-lookup 32 1 5 9
//
// With libspecc installed under /usr/local, leave out LD_LIBRARY_PATH.

using System;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;

// The functions of specc.h that this example calls.
static class Specc
{
    // Is called with the tokens of each step. A number other than 0 ends the answer.
    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate int OnTokens(IntPtr user, IntPtr tokens, UIntPtr count);

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Ansi)]
    public struct Stats
    {
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 64)] public string Recipe;
        public UIntPtr NewTokens, Drafts, Drafted, Accepted, TargetCalls;
        public double PrefillSeconds, Seconds, MeanAcceptanceLength;
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 512)] public string Error;
    }

    [DllImport("specc")] static extern IntPtr specc_error();
    [DllImport("specc")] public static extern int specc_open(string path, IntPtr options, out IntPtr model);
    [DllImport("specc")] public static extern void specc_close(IntPtr model);
    [DllImport("specc")] public static extern int specc_session_open(IntPtr model, out IntPtr session);
    [DllImport("specc")] public static extern void specc_session_close(IntPtr session);
    [DllImport("specc")]
    public static extern int specc_generate(IntPtr session, long[] prompt, UIntPtr promptTokens, string recipe,
        UIntPtr maxNewTokens, OnTokens onTokens, IntPtr user, out Stats stats);

    // Turns the status of a function of libspecc into its error text.
    public static void Check(int status)
    {
        if (status != 0) throw new IOException(Marshal.PtrToStringAnsi(specc_error()));
    }
}

static class Tokens
{
    // Decodes an answer in a session of its own.
    static void Run(IntPtr model, string recipe, ulong count, long[] prompt)
    {
        var output = Console.OpenStandardOutput();
        Action<string> write = text => output.Write(Encoding.UTF8.GetBytes(text), 0, Encoding.UTF8.GetByteCount(text));
        Specc.OnTokens print = (user, tokens, length) =>
        {
            var ids = new long[(int)length];
            Marshal.Copy(tokens, ids, 0, ids.Length);
            try { write(string.Concat(ids.Select(id => id + " "))); }
            catch (IOException) { return 1; } // Nobody reads the output any more.
            return 0;
        };
        IntPtr session;
        Specc.Stats stats;
        Specc.Check(Specc.specc_session_open(model, out session));
        try
        {
            Specc.Check(Specc.specc_generate(session, prompt, (UIntPtr)(ulong)prompt.Length, recipe, (UIntPtr)count, print,
                IntPtr.Zero, out stats));
            write(string.Format(CultureInfo.InvariantCulture,
                "\n{0}: {1} tokens, {2} target calls, mean acceptance length {3:F2}\n",
                stats.Recipe, stats.NewTokens, stats.TargetCalls, stats.MeanAcceptanceLength));
        }
        finally { Specc.specc_session_close(session); }
    }

    static int Main(string[] arguments)
    {
        try
        {
            if (arguments.Length < 4) throw new IOException("usage: tokens BUNDLE RECIPE MAX_NEW_TOKENS TOKEN_ID...");
            var numbers = arguments.Skip(2).Select(long.Parse).ToArray();
            IntPtr model;
            Specc.Check(Specc.specc_open(arguments[0], IntPtr.Zero, out model));
            try { Run(model, arguments[1], (ulong)numbers[0], numbers.Skip(1).ToArray()); }
            finally { Specc.specc_close(model); }
            return 0;
        }
        catch (Exception error) when (error is FormatException || error is OverflowException)
        { Console.Error.WriteLine("error: not numbers of 64 bits: " + string.Join(" ", arguments.Skip(2))); }
        catch (IOException error) { Console.Error.WriteLine("error: " + error.Message); }
        return 2;
    }
}
