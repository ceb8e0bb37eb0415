"""The official split of NYU-Depth V2 and its classes: 894 labels, 40 classes, 13 classes.

Splits: splits.mat of Silberman et al. (ECCV 2012). 40 classes: Gupta et al. (CVPR 2013). 13
classes: Couprie et al. (ICLR 2013) in the order of Handa et al. (SceneNet).
"""

import numpy as np

NUM_FRAMES = 1449
NUM_LABELS = 894

NAMES_40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror",
    "floor mat", "clothes", "ceiling", "books", "refridgerator", "television", "paper", "towel",
    "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp",
    "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip

NAMES_13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa",
    "table", "tv", "wall", "window",
)  # fmt: skip

# The 13-class name of each of the 40 classes.
_NAMES_40_IN_13 = (
    "wall", "floor", "furniture", "bed", "chair", "sofa", "table", "wall", "window", "furniture",
    "picture", "furniture", "window", "table", "furniture", "window", "furniture", "objects",
    "objects", "floor", "objects", "ceiling", "books", "furniture", "tv", "objects", "objects",
    "objects", "objects", "objects", "objects", "furniture", "objects", "objects", "objects",
    "objects", "objects", "objects", "furniture", "objects",
)  # fmt: skip

# The only label (1..894) of each of the first 37 classes.
_LABEL_OF_CLASS = (
    21, 11, 3, 157, 5, 83, 19, 28, 59, 88, 64, 7, 80, 36, 42, 89, 169, 119, 122, 143, 141, 4, 85,
    17, 172, 15, 135, 123, 26, 45, 331, 158, 124, 24, 144, 136, 55,
)  # fmt: skip

# The labels merged into "otherstructure" and "otherfurniture"; all others are "otherprop".
_OTHER_STRUCTURE = (
    8, 25, 33, 38, 51, 53, 57, 58, 62, 65, 79, 94, 104, 112, 134, 153, 215, 216, 223, 225, 238,
    241, 242, 256, 295, 301, 339, 342, 354, 363, 372, 380, 392, 408, 412, 453, 456, 463, 477,
    497, 541, 550, 553, 567, 573, 582, 591, 609, 612, 615, 642, 645, 657, 658, 659, 663, 667,
    668, 686, 700, 702, 777, 778, 782, 850, 861, 868, 874,
)  # fmt: skip
_OTHER_FURNITURE = (
    12, 43, 48, 50, 87, 106, 111, 161, 163, 174, 183, 204, 214, 219, 221, 224, 236, 262, 278,
    291, 298, 313, 343, 344, 356, 359, 373, 393, 401, 414, 418, 419, 430, 443, 444, 447, 448,
    457, 458, 460, 462, 475, 479, 485, 486, 493, 494, 498, 499, 509, 510, 515, 521, 524, 540,
    549, 551, 554, 556, 558, 576, 580, 608, 625, 703, 734, 770, 772, 797, 800, 803, 804, 813,
    814, 815, 820, 829, 835, 858, 863, 882, 892,
)  # fmt: skip

# 1-based numbers of the training frames; all other frames are the test set.
_TRAIN_FRAMES = """
    3-8 10-13 19-20 22-27 44-45 48-55 58 64-75 80-83 92-116 120-124 130 135-136 138-152 156-166
    170 177-179 203-206 213-219 223-249 251-263 265-270 274-278 286-295 303-309 313-314 318-324
    336-350 353-354 365-383 391-394 398-410 415-429 436-440 449-461 467-468 478-507 514 527-530
    534-536 540-548 552-554 572-578 584-590 595-602 608-611 614-616 622-632 639-643 646-649
    652-655 659-662 665-667 674-675 682-685 691-692 695-696 700-705 714-716 719-723 729-730
    735-742 745-758 788-799 805-809 815-820 824-832 847-849 853-856 863-868 872-905 909-916
    920-925 929-931 936-944 948-958 963-964 968-969 978-990 996-1000 1005-1009 1013-1020
    1024-1031 1035-1037 1040-1047 1050-1051 1054-1056 1059-1074 1085-1087 1097 1105 1110-1116
    1120-1122 1132-1134 1137-1143 1159-1161 1168-1169 1172-1173 1177-1178 1185-1191 1197-1200
    1213-1215 1221-1225 1231-1232 1236-1246 1251-1253 1266-1274 1281-1284 1296 1300-1301
    1309-1313 1316-1328 1333-1334 1341-1346 1350-1352 1357-1363 1366-1367 1370-1383 1392-1393
    1402-1406 1415-1420 1425-1429 1434-1440
"""


def split_indices() -> dict[str, np.ndarray]:
    """Returns the 0-based frames of the official split, ascending: "train" (795), "test" (654)."""
    runs = [[int(end) for end in run.split("-")] for run in _TRAIN_FRAMES.split()]
    train = np.concatenate([np.arange(run[0] - 1, run[-1]) for run in runs])
    return {"train": train, "test": np.setdiff1d(np.arange(NUM_FRAMES), train)}


def class_names(num_classes: int) -> tuple[str, ...]:
    """Returns the names of the 13 or 40 classes in their order."""
    return {13: NAMES_13, 40: NAMES_40}[num_classes]


def class_of_label(num_classes: int) -> np.ndarray:
    """Returns a table int8[895] from label (0 = unlabelled, 1..894) to class (-1 = void)."""
    classes = np.full(NUM_LABELS + 1, NAMES_40.index("otherprop"), np.int8)
    classes[0] = -1
    classes[list(_LABEL_OF_CLASS)] = np.arange(len(_LABEL_OF_CLASS), dtype=np.int8)
    classes[list(_OTHER_STRUCTURE)] = NAMES_40.index("otherstructure")
    classes[list(_OTHER_FURNITURE)] = NAMES_40.index("otherfurniture")
    if num_classes == 40:
        return classes
    of_40 = np.array([NAMES_13.index(name) for name in _NAMES_40_IN_13] + [-1], np.int8)
    return of_40[classes]  # -1 picks the last entry, which is void
