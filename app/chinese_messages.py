"""What the library says to people, in Chinese by its English: refusals, notices, facts about an answer, findings of a self test.

As in `chinese.py`, {} is a place; what stands in it is looked up in turn.
"""

__all__ = ["MESSAGES"]

MESSAGES = {
    # a file that cannot be read (latentomni/media.py)
    "mp4, mov, webm, mkv, avi, gif, wav, mp3, flac, ogg and m4a can be read": "可读取 mp4、mov、webm、mkv、avi、gif、wav、mp3、flac、ogg 和 m4a",
    "fps must be positive and max_pixels at least 4, got {} and {}": "fps 必须为正，max_pixels 至少为 4，而收到的是 {1} 和 {2}",
    "{} is in a format that cannot be converted; save it as mp4 first.": "{1} 的格式无法转换；请先另存为 mp4。",
    "{} has no {}, and its {} is switched off; switch it on.": "{1} 没有{2}，而它的{3}已关闭；请打开。",
    "picture": "画面",
    "Nothing in {} could be decoded; the file is damaged, so export or record it again.": "{1} 中没有任何内容可以解码；文件已损坏，请重新导出或录制。",
    "{} lasts {} s, so nothing of it is left from {} s on; start the cut earlier.": "{1} 长 {2} 秒，从第 {3} 秒起已没有内容；请从更早处开始。",
    "There is no file {}; check the path.": "没有文件 {1}；请检查路径。",
    "{} is a folder or a device; give one video or sound file.": "{1} 是文件夹或设备；请给出一个视频或声音文件。",
    "{} is empty (0 bytes); record or download it again.": "{1} 是空文件（0 字节）；请重新录制或下载。",
    "{} has {}; cut it shorter or compress it.": "{1} 有 {2}；请剪短或压缩。",
    "{} MiB, more than the {} MiB allowed": "{1} MiB，超过允许的 {2} MiB",
    "{} may not be read; change its permissions.": "{1} 没有读取权限；请修改权限。",
    "{} is not a video or sound file, or is damaged ({}).": "{1} 不是视频或声音文件，或已损坏（{2}）。",
    "{} holds neither a picture nor a sound that can be decoded ({}).": "{1} 中没有可以解码的画面或声音（{2}）。",
    "{} lasts {}; cut it shorter.": "{1} 长 {2}；请剪短。",
    "{} s, longer than the {} s allowed": "{1} 秒，超过允许的 {2} 秒",
    "{} has frames of {}x{} pixels, too many to read; scale it down.": "{1} 的画面为 {2}x{3} 像素，太大而无法读取；请缩小。",
    "{} is encrypted (DRM); use a copy without protection.": "{1} 已加密（DRM）；请使用没有保护的副本。",
    "Reading {} was stopped.": "已停止读取 {1}。",
    "{} holds {}; export it with one picture and one sound.": "{1} 含有 {2}；请导出为一路画面和一路声音。",
    "{} streams, more than the {} allowed": "{1} 路流，超过允许的 {2} 路",
    "{} takes more than {} s to read; cut it shorter or scale it down.": "读取 {1} 超过 {2} 秒；请剪短或缩小。",
    "{} takes more memory to read than there is; cut it shorter or scale it down.": "读取 {1} 所需的内存超过现有内存；请剪短或缩小。",
    "{} needs more than {} of memory to be read; cut it shorter or scale it down.": "读取 {1} 需要超过 {2} 的内存；请剪短或缩小。",
    "{} cannot be read, because reading it broke the decoder; save it as mp4 first.": "无法读取 {1}，因为解码器因它而崩溃；请先另存为 mp4。",
    # what of a file is missing
    "Read from {} to {} s of the file.": "读取了文件的第 {1} 到 {2} 秒。",
    "The file breaks off: {} of {} seconds could be read.": "文件中断：{2} 秒中只能读取 {1} 秒。",
    "Parts of the file are damaged and were left out.": "文件有损坏的部分，已略过。",
    "The picture is switched off.": "画面已关闭。",
    "This clip has no picture.": "这段视频没有画面。",
    "To stay within the limit, {} instead of {} frames per second are read.": "为不超过上限，每秒读取 {1} 帧而不是 {2} 帧。",
    "The sound is switched off.": "声音已关闭。",
    "This clip has no sound track.": "这段视频没有声音。",
    "The sound track is silent.": "声音是静音的。",
    "The picture of this file could not be decoded.": "这个文件的画面无法解码。",
    "The sound of this file could not be decoded.": "这个文件的声音无法解码。",
    # a question, a run (latentomni/processing.py, plan.py, runtime.py, trace.py)
    "The question has {} characters; at most {} are read, please shorten it.": "问题有 {1} 个字符，最多读取 {2} 个；请缩短。",
    "Nothing of {} is left to read, which lasts {} s; cut less, switch more on.": "{1} 长 {2} 秒，已没有可读的内容；请少剪一些，多打开一些。",
    "Memory ran out in this run. {}": "这次运行内存不足。{1}",
    "Try again when less else runs on this machine, or read less of the clip: it needs about {} GiB with the model.":
        "请在机器较空闲时重试，或少读一些视频：连同模型约需 {1} GiB。",
    "This run needs about {} GiB and {} GiB are free: {}.": "这次运行约需 {1} GiB，空闲 {2} GiB：{3}。",
    "read {} instead of {} frames per second": "请每秒读取 {1} 帧而不是 {2} 帧",
    "read at most {} instead of {} pixels a frame": "请每帧最多读取 {1} 像素而不是 {2}",
    "trim the clip to {} of its {} seconds": "请把 {2} 秒的视频剪到 {1} 秒",
    "load the model with --quantization {}": "请用 --quantization {1} 加载模型",
    "'{}' takes {} GiB and {} GiB are free: {}.": "“{1}”占用 {2} GiB，空闲 {3} GiB：{4}。",
    "load it with --quantization {}": "请用 --quantization {1} 加载",
    "choose a smaller model or a machine with more memory": "请选择更小的模型或内存更大的机器",
    "Memory ran out while '{}' was loaded; `python -m latentomni plan --model {}` says what it needs, and --quantization nf4 what it then needs.":
        "加载“{1}”时内存不足；`python -m latentomni plan --model {2}` 会说明所需内存，加上 --quantization nf4 则说明量化后的所需内存。",
    "The checkpoint '{}' cannot be loaded ({}); train or download it again.": "无法加载检查点“{1}”（{2}）；请重新训练或下载。",
    "The run ended before it began, so there is nothing to record; ask again.": "运行还没开始就结束了，没有可记录的内容；请重新提问。",
    "This answer has {} latent blocks, counted from 0, and none is number {}; choose another.":
        "这个回答有 {1} 个隐变量块（从 0 数起），没有第 {2} 块；请另选。",
    "Block {} has {} latents, counted from 0, and none is number {}; choose another.": "第 {1} 块有 {2} 个隐变量（从 0 数起），没有第 {3} 个；请另选。",
    "This model never learned latents: a block was opened for it, and what the latents hold means nothing.":
        "这个模型从未学过隐变量：块是强行打开的，其中的内容没有意义。",
    "This run used {} {}, and the model was trained with {}.": "这次运行使用 {1} {2}，而模型训练时用的是 {3}。",
    "There is no null for blocks of this shape, so matches are ranks only.": "没有这种形状的块的零分布，因此匹配只有名次。",
    "The conversation was begun with other latent settings, so this question was asked behind the clip alone.":
        "对话开始时的隐变量设置不同，因此这个问题只接在视频之后提出。",
    "The answer was cut at the token limit.": "回答在词元上限处被截断。",
    "The answer was stopped.": "回答已被停止。",
    # a trace (latentomni/bundle.py, trace.py, replays.py)
    "This run needs {} MB, and a trace may have 25 MB; ask about a shorter clip.": "这次运行需要 {1} MB，而记录最多 25 MB；请用更短的视频提问。",
    "The arrays of this trace cannot be read ({}); export the trace again.": "记录中的数组无法读取（{1}）；请重新导出。",
    "{} has {} MB, and a trace may have 25 MB.": "{1} 有 {2} MB，而记录最多 25 MB。",
    "{} unpacks to more than a trace may hold; this file is not safe to open.": "{1} 解压后超过记录的上限；打开这个文件不安全。",
    "{} is not a readable trace file ({}); choose a file that `--trace` wrote.": "{1} 不是可读的记录文件（{2}）；请选择由 `--trace` 写出的文件。",
    "A trace has at most {} members, each once; this file has {}.": "记录最多有 {1} 个成员，每个一次；这个文件有 {2} 个。",
    "The members of a trace are stored or deflated, and this file packs one otherwise; export the trace again.":
        "记录的成员只存储或以 deflate 压缩，而这个文件用了别的方式；请重新导出记录。",
    "A trace has no member named {}; this file was not written by LatentOmni.": "记录中没有名为 {1} 的成员；这个文件不是 LatentOmni 写的。",
    "This file has no {}, so it is no trace; choose a file that `--trace` wrote.": "这个文件没有 {1}，所以不是记录；请选择由 `--trace` 写出的文件。",
    "{} cannot be read ({}); export the trace again.": "{1} 无法读取（{2}）；请重新导出记录。",
    "This file has schema {}, and this version reads {}; open it with the version that wrote it.":
        "这个文件的格式版本是 {1}，当前版本读取 {2}；请用写它的版本打开。",
    "{} must be mono with 16 bits; export the trace again.": "{1} 必须是 16 位单声道；请重新导出记录。",
    "{} is missing from this trace file ({}); export the trace again.": "这个记录文件缺少 {1}（{2}）；请重新导出。",
    "{} lacks {}, has {} too much; export the trace again.": "{1} 缺少 {2}，多出 {3}；请重新导出记录。",
    "{} is not valid: {}.": "{1} 无效：{2}。",
    "{} should be {}, got {}; export the trace again.": "{1} 应为 {2}，而收到的是 {3}；请重新导出记录。",
    "This trace does not fit together: {}; export the trace again.": "这个记录自相矛盾：{1}；请重新导出。",
    "This trace is about {} (sha256 {}...), got {} (sha256 {}...); give the clip it is about.":
        "这个记录是关于 {1}（sha256 {2}...）的，而收到的是 {3}（sha256 {4}...）；请给出它所关于的视频。",
    "This question was asked in a conversation; it was asked again behind the clip alone.": "这个问题是在对话中提出的；重新提问时只接在视频之后。",
    'The trace says "{}", but asked again the model says "{}", which is what was changed.': "记录中的回答是“{1}”，但重新提问时模型回答“{2}”，改变的是后者。",
    # a change (latentomni/arms.py, variants.py, reruns.py, attention.py)
    "There is no {}; of {} latents the first {} are visual, the others audio.": "没有{1}；{2} 个隐变量中前 {3} 个是视觉的，其余是听觉的。",
    "The arm {} takes latents about other clips, and there is no bank of them that fits; choose zero or shuffled.":
        "{1} 需要其他视频的隐变量，而没有合适的隐变量库；请选择 zero 或 shuffled。",
    "There is no room in this clip ({} s) for another window as long as {} that the answer does not state; choose another arm.":
        "这段视频（{1} 秒）里放不下另一个与 {2} 等长且回答没有提到的窗口；请另选一种改变。",
    "There is no matched control: the whole sound was moved, so nothing is left to compare with.": "没有对照：整个声音都移动了，没有可比较的部分。",
    "There is no matched control: the clip has no room for another window of this length that the answer does not state.":
        "没有对照：视频里放不下另一个等长且回答没有提到的窗口。",
    "There is no matched control: nothing else of the answer is as many tokens.": "没有对照：回答中没有其他同样多词元的部分。",
    "The same was done elsewhere: {}": "在别处做了同样的改变：{1}",
    "This clip has no sound, so {} changes nothing; choose black_out.": "这段视频没有声音，{1} 不会改变任何东西；请选择 black_out。",
    "There is no block {}; the answer has {}, counted from 0.": "没有第 {1} 块；回答有 {2} 块，从 0 数起。",
    "The answer states no window for {}; say which window of the clip is meant.": "回答没有提到可用于 {1} 的窗口；请说明是视频的哪个窗口。",
    "The window {} lies behind the end of the clip ({} s); choose one inside.": "窗口 {1} 在视频结尾（{2} 秒）之后；请选择视频之内的窗口。",
    "The answer has no latent block to change; ask in latent mode, or change the clip (black_out, mute, shift_sound).":
        "回答没有可改变的隐变量块；请用隐变量方式提问，或改变视频（black_out、mute、shift_sound）。",
    "The true windows are not known here; the features are those of the stated ones.": "这里不知道真实窗口；用的是回答所述窗口的特征。",
    "This arm changed nothing: what it puts in their place are these very latents.": "什么也没有改变：换上的正是这些隐变量。",
    "The same latents were moved as far, each in a random direction.": "同样的隐变量移动了同样的距离，方向随机。",
    "The new answer was likelier word by word, but as a whole the first one still is.": "逐词来看新回答更可能，但整体上第一个回答仍更可能。",
    "Picture and sound of {} were taken out of the clip.": "去掉了视频 {1} 的画面和声音。",
    "The sound of {} was taken out of the clip.": "去掉了视频 {1} 的声音。",
    "The whole sound was moved {} s later.": "整个声音推后了 {1} 秒。",
    "The whole sound was moved {} s earlier.": "整个声音提前了 {1} 秒。",
    "The sound of {} was moved {} s later.": "{1} 的声音推后了 {2} 秒。",
    "The sound of {} was moved {} s earlier.": "{1} 的声音提前了 {2} 秒。",
    "A shift is some seconds, not {}; try 0.5.": "平移应为若干秒，而不是 {1}；请试 0.5。",
    "Attention is shown for runs of at most {} tokens, and this one has {}; ask about a shorter clip, or with fewer frames or pixels.":
        "注意力最多显示 {1} 个词元的运行，而这次有 {2} 个；请用更短的视频，或减少帧数或像素。",
    # the evidence reel (visualizers/reel.py)
    "{} could not be cut ({}); save it as mp4 first and ask again.": "{1} 无法剪辑（{2}）；请先另存为 mp4 再提问。",
    "{} cannot be opened for cutting; save it as mp4 first and ask again.": "{1} 无法打开以供剪辑；请先另存为 mp4 再提问。",
    # the settings (latentomni/config.py)
    "unknown {} '{}'; choose one of {}": "未知的 {1}“{2}”；请选择 {3} 之一",
    "a block has 1 to {} instants, got {}": "一个块有 1 到 {1} 个时刻，而收到的是 {2}",
    "fps must be between 0.05 and 30, got {}": "fps 必须在 0.05 到 30 之间，而收到的是 {1}",
    "max_pixels must be {} to {}, got {}": "max_pixels 必须是 {1} 到 {2}，而收到的是 {3}",
    "a cut starts at 0 s or later, got {}": "剪辑从 0 秒或更晚开始，而收到的是 {1}",
    # facts about an answer (app/copy.py, app/remarks.py)
    "{}. The answer was cut at the token limit.": "{1}。回答在词元上限处被截断。",
    "{}. The answer was stopped.": "{1}。回答已被停止。",
    "{}. True answer: {}": "{1}。正确答案：{2}",
    "Parts of this model do not fit beside the rest and are fetched at every step, so it answers slowly; try --quantization nf4.":
        "这个模型的一部分放不下，每一步都要重新读取，因此回答很慢；请试试 --quantization nf4。",
    "{} in nf4": "{1}（nf4 量化）",
    "{} in int8": "{1}（int8 量化）",
    "{}, with latents, {}": "{1}，使用隐变量，{2}",
    "{}, thinking in words, {}": "{1}，用文字思考，{2}",
    "{}, direct answer, {}": "{1}，直接回答，{2}",
    "{}, with latents": "{1}，使用隐变量",
    "{}, thinking in words": "{1}，用文字思考",
    "{}, direct answer": "{1}，直接回答",
    "{} token, {} s, {} tokens/s": "{1} 个词元，{2} 秒，每秒 {3} 个词元",
    "{} tokens, {} s, {} tokens/s": "{1} 个词元，{2} 秒，每秒 {3} 个词元",
    "{} token, {} s": "{1} 个词元，{2} 秒",
    "{} tokens, {} s": "{1} 个词元，{2} 秒",
    "This checkpoint has random weights; it was never trained, and its answers are noise.": "这个检查点的权重是随机的，从未训练，回答只是噪声。",
    "nano knows AV World only (24 coloured shapes, 6 sounds). If this clip is anything else, the answer is a guess and the latents mean nothing.":
        "nano 只认识 AV World（24 种彩色形状，6 种声音）。如果这段视频是别的内容，回答只是猜测，隐变量没有意义。",
    "Answer: right, true is {}.": "回答：正确，答案是 {1}。",
    "Answer: wrong, true is {}.": "回答：错误，答案是 {1}。",
    "Window: overlap {} with the true one, {} (1 is the same).": "窗口：与真实窗口 {2} 的重叠为 {1}（1 为完全相同）。",
    "Evidence in {}: {}.": "{1}中的证据：{2}。",
    "pictures": "画面",
    "sounds": "声音",
    "there is none": "没有",
    "inside the true window": "在真实窗口之内",
    "outside the true window": "在真实窗口之外",
    "partly inside the true windows": "部分在真实窗口之内",
}  # fmt: skip

_WHICH = {
    "All latents": "所有隐变量",
    "All visual latents": "所有视觉隐变量",
    "All audio latents": "所有听觉隐变量",
    "The latents of block {}": "第 {1} 块的隐变量",
    "The visual latents of block {}": "第 {1} 块的视觉隐变量",
    "The audio latents of block {}": "第 {1} 块的听觉隐变量",
    "Latent {} of block {}": "第 {2} 块的第 {1} 个隐变量",
    "Visual latent {} of block {}": "第 {2} 块的第 {1} 个视觉隐变量",
    "Audio latent {} of block {}": "第 {2} 块的第 {1} 个听觉隐变量",
}
_DONE = {
    "left as they were": "保持不变",
    "replaced with zeros": "被换成零",
    "replaced with their mean over other clips": "被换成其他视频中的平均值",
    "replaced with noise of their slot's mean and covariance": "被换成均值和协方差相同的噪声",
    "replaced with those of another clip": "被换成另一段视频的隐变量",
    "replaced with features of another window of the clip": "被换成视频另一窗口的特征",
    "put in another order": "被打乱顺序",
    "removed, their markers kept": "被去掉，标记保留",
    "removed with their markers": "连同标记被去掉",
    "replaced with pause tokens": "被换成停顿词元",
    "kept where visual, the others replaced with their mean over other clips": "只保留视觉的，其余换成其他视频中的平均值",
    "kept where audio, the others replaced with their mean over other clips": "只保留听觉的，其余换成其他视频中的平均值",
    "replaced with features of the stated window": "被换成所述窗口的特征",
}
_VERBS = {"were": "their", "was": "its"}
MESSAGES |= _WHICH | {
    f"{{}} {verb} {done.replace('their', whose)}.": f"{{1}}{chinese}。" for verb, whose in _VERBS.items() for done, chinese in _DONE.items()
}
